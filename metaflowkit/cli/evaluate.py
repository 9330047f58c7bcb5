"""``mfk evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metaflowkit.cli.base import overriding, say


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--way", type=click.IntRange(2), help="Classes per episode.")
@click.option("--shot", type=click.IntRange(1), help="Support examples per class, or per task without classes.")
@click.option("--query", type=click.IntRange(1), help="Query examples per class.")
@click.option("--steps", multiple=True, type=click.IntRange(0), help="Inner steps, for tasks without classes; may be repeated.")
@click.option("--episodes", type=click.IntRange(2), help="Number of episodes.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--readout", "readouts", multiple=True, help="How to classify (mfk components readout); may be repeated; all by default.")
@overriding
def evaluate(run_dir: Path, overrides: tuple[str, ...], split: str, weights: str, readouts: tuple[str, ...], **sizes: Any) -> None:
    """Measure the weights in RUN, few-shot accuracy or what its tasks are measured by, and add it to the run's evaluations.jsonl."""
    from metaflowkit.training.evaluate_run import evaluate_run

    scores, protocol = evaluate_run(
        run_dir, overrides, split, weights, readouts or None, {k: list(v) if k == "steps" else v for k, v in sizes.items() if v not in (None, ())}
    )
    for score in scores:
        say(f"{score.split} {score.setting}: {score} ({score.episodes} {score.counted})")
    say(f"± 95 % confidence of the mean; {protocol}")
