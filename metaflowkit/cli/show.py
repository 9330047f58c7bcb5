"""``mfk show``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json


@click.command(epilog=examples("mfk show pipelines/quickstart.yaml", "mfk show pipelines/quickstart.yaml --set inner.steps=5"))
@click.argument("pipeline", type=click.Path(path_type=Path))
@overriding
@as_json
def show(pipeline: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every setting of PIPELINE and where it comes from, the way of the data, parameters, and what a run costs on this machine.

    The settings are YAML, and may be kept as a pipeline.
    """
    from metaflowkit.config.pipeline import read

    definition = read(pipeline, overrides)
    with loading():
        from metaflowkit.reporting.show import plain
        from metaflowkit.reporting.show import show as lines_of

    if as_json:
        say_json(plain(definition))
        return

    for line in lines_of(definition):
        say(line)
