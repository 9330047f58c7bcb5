"""``mfk doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json


@click.command(epilog=examples("mfk doctor pipelines/quickstart.yaml"))
@click.argument("pipeline", type=click.Path(path_type=Path))
@overriding
@as_json
def doctor(pipeline: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the meta-gradient of PIPELINE in float64 and float32, and say what a step costs; exit 1 if something is wrong."""
    from metaflowkit.config.pipeline import read

    definition = read(pipeline, overrides)
    with loading():
        from metaflowkit.doctor import Verdict, conclusion, diagnose
        from metaflowkit.doctor.watching import watching

    findings = []
    with watching() as (tell, paused):
        for finding in diagnose(definition, tell):
            findings.append(finding)
            if not as_json:
                with paused():
                    say(str(finding))
    if as_json:
        say_json({"findings": [{"verdict": finding.verdict.name.lower(), "text": finding.text} for finding in findings], "conclusion": conclusion(findings)})
    else:
        say(conclusion(findings))
    sys.exit(1 if any(finding.verdict is Verdict.WRONG for finding in findings) else 0)
