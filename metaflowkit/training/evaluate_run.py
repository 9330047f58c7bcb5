"""Evaluation of a finished run: its weights are read from its directory, and the scores appended to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import READOUTS, TASKS
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Pipeline
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.measurement import measurements, protocol
from metaflowkit.evaluation.scores import Score
from metaflowkit.training import checkpoint
from metaflowkit.training.run_directory import Run


def load(folder: str | Path, weights: str = "best", overrides: Sequence[str] = ()) -> Flow:
    """The flow of a run with the weights that it learned, as :func:`metaflowkit.evaluate` takes it.

    Args:
        folder: the run directory.
        weights: ``best`` by validation accuracy, or ``last``, those of the newest checkpoint.
        overrides: changes to the run's pipeline, such as another data set for evaluation across domains.

    Returns:
        A flow without training tasks, so that a data set of test classes alone suffices.

    Raises:
        ConfigError: there are no such weights, or an override is wrong.
        RunError: the folder is no run directory.
        CheckpointError: it has no checkpoint, or the weights do not fit the pipeline with its overrides.
    """
    run = Run(Path(folder))
    run.pipeline()
    return _load(run, read(run.folder / "pipeline.yaml", overrides), weights)[0]


def _load(run: Run, pipeline: Pipeline, weights: str) -> tuple[Flow, int]:
    """The flow of a pipeline with weights of a run, and the outer step that they are of; see :func:`load`."""
    if weights not in ("best", "last"):
        raise ConfigError(f"weights: there is no {weights!r}; {nearest(weights, ['best', 'last'])}")
    path = run.checkpoints / "best.pt" if weights == "best" else run.latest_path()
    snapshot = run.load_checkpoint(path)
    flow = build(pipeline, train=False)
    checkpoint.require_fit(snapshot, path, flow.learner.model, "keep model, inner.steps, image size and channels as in the run")
    flow.learner.model.load_state_dict(snapshot.model)
    return flow, snapshot.step


def evaluate_run(
    folder: Path, overrides: Sequence[str], split: str, weights: str, readouts: Sequence[str] | None, sizes: dict[str, Any]
) -> tuple[list[Score], str]:
    """Measure the weights of a run and append the scores to its ``evaluations.jsonl``.

    Args:
        folder: the run directory.
        overrides: changes to its pipeline, such as another data set for evaluation across domains.
        split: ``train``, ``val`` or ``test``.
        weights: ``best`` or ``last``.
        readouts: see :func:`metaflowkit.evaluation.episodes.evaluate`; None for all, without ``adapted`` where the pipeline cannot adapt to these sizes.
        sizes: any of the numbers in ``evaluate``, such as way, shot, query, steps, episodes; the rest come from the pipeline.

    Returns:
        The scores, and the protocol they were measured by.

    Raises:
        RunError: the folder is no run directory.
        CheckpointError: it has no such weights, or they do not fit the pipeline with its overrides.
    """
    run = Run(folder)
    run.pipeline()
    size_overrides = [f"evaluate.{key}={value}" for key, value in sizes.items()]
    pipeline, notes = _with_readouts(folder / "pipeline.yaml", [*overrides, *size_overrides], readouts)
    flow, step = _load(run, pipeline, weights)
    scores = [score for group in measurements(flow, split) for score in group]
    protocol_text = "; ".join([protocol(flow), *notes])
    facts = {
        "weights": weights,
        "step": step,
        "overrides": list(overrides),
        "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "protocol": protocol_text,
    }
    run.append([{**facts, **score.plain()} for score in scores])
    return scores, protocol_text


def _with_readouts(path: Path, overrides: list[str], readouts: Sequence[str] | None) -> tuple[Pipeline, list[str]]:
    """The pipeline with these readouts, and why one was left out; unchanged where its tasks have their own measurement."""
    pipeline = read(path)
    if TASKS.entries(pipeline.plugins)[pipeline.tasks.name].tags["measured"] and readouts is None:
        return read(path, overrides), []
    if readouts is not None:
        return read(path, [*overrides, f"evaluate.readouts=[{', '.join(readouts)}]"]), []
    entries = READOUTS.entries(pipeline.plugins)
    frozen = read(path, [*overrides, f"evaluate.readouts=[{', '.join(name for name, entry in entries.items() if not entry.tags['adapts'])}]"])
    try:
        return read(path, [*overrides, f"evaluate.readouts=[{', '.join(entries)}]"]), []
    except ConfigError as error:
        adapting = ", ".join(repr(name) for name, entry in entries.items() if entry.tags["adapts"])
        return frozen, [f"{adapting} is left out: {error.problems[0].partition(': ')[2]}"]
