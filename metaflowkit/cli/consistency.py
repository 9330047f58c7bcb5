"""``mfk consistency``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json


@click.command(epilog=examples("mfk consistency pipelines/quickstart.yaml", "mfk consistency runs/mine --split test"))
@click.argument("pipeline", metavar="PIPELINE|RUN", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Where the picture and the numbers are written; by default consistency/<name>.")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--images", "count", type=click.IntRange(4, 5000), default=500, show_default=True, help="Images at most.")
@click.option("--views", type=click.IntRange(2, 100), default=4, show_default=True, help="Views of each image.")
@overriding
@as_json
def consistency(pipeline: Path, overrides: tuple[str, ...], as_json: bool, folder: Path | None, split: str, count: int, views: int) -> None:
    """How often a view lies nearest to its own image, and to its class: before training, level by level, in pixels and embedding."""
    with loading():
        from metaflowkit.reporting.consistency import NUMBERS, check_consistency

    output = folder or Path("consistency") / pipeline.resolve().stem
    lines = check_consistency(pipeline, overrides, output, split, count, views)
    if as_json:
        say_json(json.loads((output / NUMBERS).read_text()))
        return
    for line in lines:
        say(line)
