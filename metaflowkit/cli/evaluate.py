"""``mfk evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from metaflowkit.cli import completion
from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json
from metaflowkit.errors import ConfigError


@click.command(
    epilog=examples(
        "mfk evaluate runs/mine --way 20 --shot 1",
        "mfk evaluate runs/mine --set 'dataset={name: folder, root: photos}'",
        "mfk evaluate runs/mine --one-shot-runs all_runs.zip",
    )
)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--way", type=click.IntRange(2), help="Classes per episode.")
@click.option("--shot", type=click.IntRange(1), help="Support examples per class, or per task without classes.")
@click.option("--query", type=click.IntRange(1), help="Query examples per class.")
@click.option("--steps", multiple=True, type=click.IntRange(0), help="Inner steps, for tasks without classes; may be repeated.")
@click.option("--episodes", type=click.IntRange(2), help="Number of episodes.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option(
    "--weights",
    type=click.Choice(["best", "last", "untrained"]),
    default="best",
    show_default=True,
    help="Best by validation, of the newest checkpoint, or before the first outer step.",
)
@click.option(
    "--readout",
    "readouts",
    multiple=True,
    shell_complete=completion.readouts,
    help="How to classify (mfk components readout); may be repeated; by default all but those on augmented images.",
)
@click.option(
    "--one-shot-runs", "runs", type=click.Path(path_type=Path), help="Measure on one-shot runs in Lake's format, a folder or zip, instead of a split."
)
@click.option("--invert/--no-invert", default=True, show_default=True, help="Swap black and white of one-shot runs, which are ink on paper.")
@overriding
@as_json
def evaluate(
    run_dir: Path, overrides: tuple[str, ...], split: str, weights: str, readouts: tuple[str, ...], runs: Path | None, invert: bool, as_json: bool, **sizes: Any
) -> None:
    """Measure the weights in RUN, few-shot accuracy or what its tasks are measured by, and add it to the run's evaluations.jsonl.

    With --set dataset=... it is measured on another data set, whose images are converted to the channels and size of the training images.
    """
    with loading():
        from metaflowkit.training.evaluate_run import evaluate_run, evaluate_run_on_one_shot_runs

    given = {k: list(v) if k == "steps" else v for k, v in sizes.items() if v not in (None, ())}
    if runs is None:
        scores, protocol = evaluate_run(run_dir, overrides, split, weights, readouts or None, given)
    else:
        if click.get_current_context().get_parameter_source("split") is not ParameterSource.DEFAULT:
            given["split"] = split
        if given:
            raise ConfigError(f"--{next(iter(given))}: is given by the one-shot runs themselves; leave it out")
        scores, protocol = evaluate_run_on_one_shot_runs(run_dir, runs, overrides, weights, readouts or None, invert)
    if as_json:
        say_json({"scores": [score.plain() for score in scores], "protocol": protocol})
        return
    for score in scores:
        say(f"{score.split} {score.setting}: {score} ({score.episodes} {score.counted})")
    say(f"± 95 % confidence of the mean; {protocol}")
