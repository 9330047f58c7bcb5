"""``mfk run``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, overriding, say, say_json
from metaflowkit.errors import ConfigError, RunError


@click.command(
    epilog=examples(
        "mfk run pipelines/quickstart.yaml", "mfk run pipelines/quickstart.yaml --set objective.delta=2 --set seed=1", "mfk run --run-dir runs/mine --resume"
    )
)
@click.argument("pipeline", required=False, type=click.Path(path_type=Path))
@overriding
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where to write; by default runs/<pipeline>-<time>.")
@click.option("--resume", is_flag=True, help="Resume the run in --run-dir with its stored pipeline; PIPELINE and --set, if given, must agree with it.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --run-dir.")
@click.option("--quiet", is_flag=True, help="Print nothing but the report; so does --json.")
@as_json
def run(pipeline: Path | None, overrides: tuple[str, ...], run_dir: Path | None, resume: bool, overwrite: bool, quiet: bool, as_json: bool) -> None:
    """Train PIPELINE, keep its best weights, and evaluate them on test classes."""
    from metaflowkit.config.pipeline import read

    if resume and run_dir is None:
        if pipeline is None or not pipeline.is_dir():
            raise ConfigError("--resume: needs the run to go on with; add --run-dir runs/...")
        pipeline, run_dir = None, pipeline
    if pipeline is None:
        if run_dir is None or not resume:
            raise ConfigError("mfk run: needs a pipeline file; name one, or the run to go on with by --run-dir and --resume")
        pipeline = run_dir / "pipeline.yaml"
        if not pipeline.is_file():
            raise RunError(f"{run_dir}: holds no run to resume; name its directory with --run-dir, or give the pipeline file to start it")
    definition = read(pipeline, overrides)
    from metaflowkit.reporting.terminal import choose_progress
    from metaflowkit.reporting.train import train

    report = train(definition, run_dir, resume, overwrite, choose_progress(quiet or as_json))
    if as_json:
        say_json(report.plain())
    else:
        say("\n".join(["", *report.lines()]))
