"""Evaluation of a finished run: its weights are read from its directory, and the scores appended to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from metaflowkit.composition.flow import FewShotFlow, Flow, build, build_without_data
from metaflowkit.config.choice import Choice
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import READOUTS, TASKS
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Pipeline
from metaflowkit.datasets.images import Decoding
from metaflowkit.datasets.one_shot_runs import read_one_shot_runs
from metaflowkit.errors import CheckpointError, ConfigError
from metaflowkit.evaluation.measurement import measurements, protocol
from metaflowkit.evaluation.one_shot_runs import evaluate_one_shot_runs
from metaflowkit.evaluation.precomputed import with_features
from metaflowkit.evaluation.scores import Score
from metaflowkit.training import checkpoint
from metaflowkit.training.run_directory import Run

WEIGHTS = ("best", "last", "untrained")


def load(folder: str | Path, weights: str = "best", overrides: Sequence[str] = ()) -> Flow:
    """The flow of a run with the weights that it learned, as :func:`metaflowkit.evaluate` takes it.

    Args:
        folder: the run directory.
        weights: ``best`` by validation accuracy, ``last``, those of the newest checkpoint, or ``untrained``, those before the first outer step, for
            which the run's own data set is read.
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


def load_without_data(folder: Path, weights: str = "best") -> FewShotFlow:
    """The flow of a run that classifies images, with the weights that it learned, for images that come from elsewhere; its data set is not read.

    Raises:
        ConfigError: there are no such weights, or the run classifies no images.
        RunError: the folder is no run directory.
        CheckpointError: it has no checkpoint, or one that does not say the shape of the images.
    """
    run = Run(folder)
    return cast(FewShotFlow, _load(run, run.pipeline(), weights, data=False)[0])


def _load(run: Run, pipeline: Pipeline, weights: str, data: bool = True) -> tuple[Flow, int]:
    """The flow of a pipeline with weights of a run, and the outer step that they are of; see :func:`load`.

    Args:
        run: the run.
        pipeline: that of the run, with overrides.
        weights: ``best``, ``last`` or ``untrained``.
        data: whether the flow holds the pipeline's data set, whose images are converted to the shape of the training images where it is another
            data set than the run's.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights: there is no {weights!r}; {nearest(weights, list(WEIGHTS))}")
    path = run.checkpoints / "best.pt" if weights == "best" else run.latest_path()
    snapshot = run.load_checkpoint(path)
    flow = build(pipeline, False, _conversion(run.pipeline(), pipeline, snapshot.shape), weights=False) if data else _without_data(pipeline, snapshot.shape)
    checkpoint.require_fit(snapshot, path, flow.learner.model, "keep model, inner.steps, image size and channels as in the run")
    untrained = weights == "untrained"
    flow.learner.model.load_state_dict(build(run.pipeline()).learner.model.state_dict() if untrained else snapshot.model)
    return with_features(flow), 0 if untrained else snapshot.step


def _conversion(trained: Pipeline, measured: Pipeline, shape: list[int]) -> tuple[int, ...] | None:
    """The shape that images are converted to: that of the training, where they are of another data set."""

    def without_size(choice: Choice | None) -> Any:
        return choice and (choice.name, {key: value for key, value in choice.settings.items() if key != "image_size"})

    return tuple(shape) if shape and without_size(trained.dataset) != without_size(measured.dataset) else None


def evaluate_run(
    folder: Path, overrides: Sequence[str], split: str, weights: str, readouts: Sequence[str] | None, sizes: dict[str, Any]
) -> tuple[list[Score], str]:
    """Measure the weights of a run and append the scores to its ``evaluations.jsonl``.

    Args:
        folder: the run directory.
        overrides: changes to its pipeline, such as another data set for evaluation across domains.
        split: ``train``, ``val`` or ``test``.
        weights: ``best``, ``last`` or ``untrained``.
        readouts: see :func:`metaflowkit.evaluation.episodes.evaluate`; None for all, without ``adapted`` where the pipeline cannot adapt to these sizes, and
            without those on augmented images that the pipeline does not name.
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
    return scores, _appended(run, scores, "; ".join([protocol(flow), *notes]), weights, step, overrides)


def evaluate_run_on_one_shot_runs(
    folder: Path, root: Path, overrides: Sequence[str] = (), weights: str = "best", readouts: Sequence[str] | None = None, invert: bool = True
) -> tuple[list[Score], str]:
    """Measure the weights of a run on one-shot runs in Lake's format, and append the scores to its ``evaluations.jsonl``.

    Args:
        folder: the run directory; its data set is read for ``untrained`` weights alone.
        root: folder or zip of the one-shot runs, see :func:`metaflowkit.datasets.one_shot_runs.read_one_shot_runs`.
        overrides: changes to the run's pipeline.
        weights: ``best``, ``last`` or ``untrained``.
        readouts: their names; None for ``prototype``.
        invert: whether black and white are swapped, since the files are ink on paper and Omniglot is read as white on black.

    Returns:
        The scores, with the runs as what they count, and the protocol they were measured by.

    Raises:
        RunError, CheckpointError: see :func:`evaluate_run`; also of a run whose checkpoints do not say the shape of its images.
        ConfigError: the run classifies no images.
        DataError: the one-shot runs are malformed.
    """
    run = Run(folder)
    run.pipeline()
    names = list(readouts or ["prototype"])
    pipeline = read(folder / "pipeline.yaml", [*overrides, f"evaluate.readouts=[{', '.join(names)}]"])
    flow, step = _load(run, pipeline, weights, data=False)
    channels, size = flow.interface.shape[0], flow.interface.shape[-1]
    runs = read_one_shot_runs(root, Decoding(size, "grey" if channels == 1 else "color", invert))
    scores = evaluate_one_shot_runs(cast(FewShotFlow, flow), runs, pipeline.evaluate.readouts)
    text = f"{protocol(flow, names, drawn=False)}; {len(runs)} one-shot runs of {root}, {'black and white swapped' if invert else 'colours as they are'}"
    return scores, _appended(run, scores, text, weights, step, overrides)


def _without_data(pipeline: Pipeline, shape: list[int]) -> Flow:
    if not shape:
        raise CheckpointError(
            "checkpoint: does not say the shape of the images, since an earlier version wrote it; train again, or evaluate on a data set with --set dataset=..."
        )
    return build_without_data(pipeline, tuple(shape))


def _appended(run: Run, scores: Sequence[Score], protocol_text: str, weights: str, step: int, overrides: Sequence[str]) -> str:
    """Append scores to the run's ``evaluations.jsonl``, and return their protocol."""
    facts = {
        "weights": weights,
        "step": step,
        "overrides": list(overrides),
        "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "protocol": protocol_text,
    }
    run.append([{**facts, **score.plain()} for score in scores])
    return protocol_text


def _with_readouts(path: Path, overrides: list[str], readouts: Sequence[str] | None) -> tuple[Pipeline, list[str]]:
    """The pipeline with these readouts, and why one was left out; unchanged where its tasks have their own measurement."""
    pipeline = read(path)
    if TASKS.entries(pipeline.plugins)[pipeline.tasks.name].tags["measured"] and readouts is None:
        return read(path, overrides), []
    if readouts is not None:
        return read(path, [*overrides, f"evaluate.readouts=[{', '.join(readouts)}]"]), []
    own = {choice.name for choice in pipeline.evaluate.readouts}
    entries = {name: entry for name, entry in READOUTS.entries(pipeline.plugins).items() if name in own or not entry.tags["augments"]}  # those take longer
    frozen = read(path, [*overrides, f"evaluate.readouts=[{', '.join(name for name, entry in entries.items() if not entry.tags['adapts'])}]"])
    try:
        return read(path, [*overrides, f"evaluate.readouts=[{', '.join(entries)}]"]), []
    except ConfigError as error:
        adapting = ", ".join(repr(name) for name, entry in entries.items() if entry.tags["adapts"])
        return frozen, [f"{adapting} is left out: {error.problems[0].partition(': ')[2]}"]
