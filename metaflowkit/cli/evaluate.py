"""``mfk evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import overriding, say


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--way", type=click.IntRange(2), help="Classes per episode.")
@click.option("--shot", type=click.IntRange(1), help="Support images per class.")
@click.option("--query", type=click.IntRange(1), help="Query images per class.")
@click.option("--episodes", type=click.IntRange(2), help="Number of episodes.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--readout", "readouts", multiple=True, type=click.Choice(["prototype", "adapted", "logistic"]), help="May be repeated; all three by default.")
@overriding
def evaluate(run_dir: Path, overrides: tuple[str, ...], split: str, weights: str, readouts: tuple[str, ...], **sizes: int | None) -> None:
    """Measure the few-shot accuracy of the weights in RUN and add it to the run's evaluations.jsonl."""
    from metaflowkit.training.evaluate_run import evaluate_run

    scores, protocol = evaluate_run(run_dir, overrides, split, weights, readouts or None, {k: v for k, v in sizes.items() if v is not None})
    for score in scores:
        say(f"{score.split} {score.way}-way {score.shot}-shot {score.readout}: {score} ({score.episodes} episodes)")
    say(f"± 95 % confidence of the mean; {protocol}")
