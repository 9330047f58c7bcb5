"""``mfk compare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json


@click.command(epilog=examples("mfk compare a.yaml b.yaml --seeds 5", "mfk compare a.yaml --vary objective.delta=1 --vary objective.delta=5 --budget 10m"))
@click.argument("pipelines", nargs=-1, type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each pipeline.")
@click.option("--budget", metavar="STEPS|TIME", help="Outer steps of each run (500), or its training time (90s, 10m, 2h); by default as the pipelines say.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Where runs and results are written; by default comparisons/<names>.")
@click.option("--vary", "variations", multiple=True, metavar="PATH=VALUE", help="Instead of several PIPELINES: one, changed by each of these in turn.")
@overriding
@as_json
def compare(
    pipelines: tuple[Path, ...], overrides: tuple[str, ...], variations: tuple[str, ...], seeds: int, budget: str | None, folder: Path | None, as_json: bool
) -> None:
    """Train PIPELINES, the baseline first, with several seeds, and compare them on the same test episodes; the same command goes on where it was stopped."""
    with loading():
        from metaflowkit.comparison.compare import compare as run_comparison

    tell = partial(say, err=True) if as_json else say
    comparison = run_comparison(
        pipelines, overrides, seeds, budget, folder or Path("comparisons") / "-".join(path.stem for path in pipelines), tell, variations
    )
    if as_json:
        say_json(comparison.plain())
