"""``mfk show``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import examples, overriding, say


@click.command(epilog=examples("mfk show pipelines/quickstart.yaml", "mfk show pipelines/quickstart.yaml --set inner.steps=5"))
@click.argument("pipeline", type=click.Path(path_type=Path))
@overriding
def show(pipeline: Path, overrides: tuple[str, ...]) -> None:
    """Show every setting of PIPELINE and where it comes from, the way of the data, parameters, and what a run costs on this machine.

    The settings are YAML, and may be kept as a pipeline.
    """
    from metaflowkit.config.pipeline import read

    definition = read(pipeline, overrides)
    from metaflowkit.reporting.show import show as lines_of

    for line in lines_of(definition):
        say(line)
