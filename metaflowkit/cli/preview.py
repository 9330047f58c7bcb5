"""``mfk preview``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import examples, loading, overriding, say


@click.command(epilog=examples("mfk preview pipelines/quickstart.yaml -o tasks.png", "mfk preview pipelines/quickstart.yaml --levels --tasks 1"))
@click.argument("pipeline", type=click.Path(path_type=Path))
@click.option("-o", "--output", "path", default="tasks.png", show_default=True, type=click.Path(path_type=Path, dir_okay=False), help="The picture.")
@click.option("--tasks", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--levels", is_flag=True, help="The views of all four levels of augmentation side by side.")
@overriding
def preview(pipeline: Path, overrides: tuple[str, ...], path: Path, tasks: int, levels: bool) -> None:
    """Draw a contact sheet of the training tasks of PIPELINE: support and query views beside the images they were made of."""
    from metaflowkit.config.pipeline import read

    definition = read(pipeline, overrides)
    with loading():
        from metaflowkit.reporting.preview import write_preview

    text = write_preview(definition, path, tasks, levels)
    say(f"written: {path} ({text})")
