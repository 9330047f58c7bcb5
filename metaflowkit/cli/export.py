"""``mfk export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, say, say_json


@click.command(epilog=examples("mfk export runs/mine -o embedding", "mfk export runs/mine -o embedding --data-licence CC-BY-4.0"))
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--data-licence", "licence", default="", metavar="TEXT", help="Licence of the training data, for the card.")
@as_json
def export(run_dir: Path, folder: Path, weights: str, licence: str, as_json: bool) -> None:
    """Write the embedding of RUN for use without this package: safetensors, a torch.export program, ONNX, a card and an example in plain PyTorch."""
    with loading():
        from metaflowkit.prediction.export import FACTS
        from metaflowkit.prediction.export import export as exported

    lines = exported(run_dir, folder, weights, licence)
    if as_json:
        say_json({"folder": str(folder), **json.loads((folder / FACTS).read_text(encoding="utf-8"))})
    else:
        say("\n".join(lines))
