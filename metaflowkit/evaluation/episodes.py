"""Few-shot accuracy with 95 % confidence intervals, on fixed seeded episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow, Flow
from metaflowkit.composition.learner import placed
from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import READOUTS
from metaflowkit.config.schema import nearest
from metaflowkit.criteria import accuracy
from metaflowkit.engines.contract import kind_of
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.base import Readout, Shown
from metaflowkit.evaluation.feature_table import feature_table
from metaflowkit.evaluation.parallel import in_parallel
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score, joined
from metaflowkit.models.normalisation import current_statistics, stored_norms
from metaflowkit.seeding import seed_for
from metaflowkit.stages import stage
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import Episode, Labelled

BATCH = 20


def evaluate(
    flow: Flow,
    split: str = "test",
    way: int = 5,
    shot: int = 1,
    query: int = 15,
    episodes: int = 600,
    readouts: str | Iterable[str | Choice] = ("prototype", "adapted"),
    statistics: Literal["stored", "current"] = "stored",
) -> list[Score]:
    """Adapt and classify.

    Args:
        flow: a built pipeline with the weights to measure.
        split: ``val`` or ``test``, or ``train`` where the flow holds its labels (built with ``train=False``, or for labelled tasks).
        way: classes per episode.
        shot: support images per class.
        query: query images per class.
        episodes: number of episodes; the same for every readout, drawn from ``evaluate.seed``.
        readouts: names of readouts (:mod:`metaflowkit.evaluation.readouts`), or choices with their settings.
        statistics: of batch normalisation that stores some (``norm: per_step``): ``stored``, or those of the ``current`` set (transductive).

    Returns:
        One score per readout.

    Raises:
        ConfigError: there is no such readout, a number is too small, a layer lacks its statistics, or there are none but those of the current set.
        DataError: the split has too few classes or images.
    """
    if not isinstance(flow, FewShotFlow):
        raise ConfigError("evaluate: these tasks are measured by themselves; call metaflowkit.evaluate_adaptation")
    if split not in flow.splits:
        raise DataError(f"split {split!r}: is not in this flow, which has {', '.join(flow.splits)}; choose one of them")
    if not flow.splits[split].classes:
        raise DataError(
            f"split {split!r}: has no classes, so accuracy cannot be measured on it; choose another split, or another data set with --set dataset=..."
        )
    chosen = chosen_readouts(readouts, flow.pipeline.plugins)
    if any(norm.means.isnan().any() for norm in stored_norms(flow.learner.model)):
        raise ConfigError("model.backbone.norm: its statistics have not been taken yet; load the weights of a run, or call flow.calibrate(start=True)")
    for argument, value, least in (("way", way, 2), ("shot", shot, 1), ("query", query, 1), ("episodes", episodes, 2)):
        if value < least:
            raise ConfigError(f"{argument}: must be at least {least}, got {value}; raise it")
    batches = math.ceil(episodes / BATCH)
    with normalising(flow, statistics), stage(f"measuring {split} {way}-way {shot}-shot", len(flow.world.share(batches))) as advance:
        tasks = shown_tasks(flow, split, way, shot, query, episodes, embedded=not all(readout.adapts for readout in chosen.values()))
        measured = accuracies(flow, chosen, tasks, batches, advance)
    return [Score.of(split, FewShot(way, shot, query, name, statistics), ACCURACY, values) for name, values in measured.items()]


def accuracies(
    flow: FewShotFlow, chosen: Mapping[str, Readout], tasks: Callable[[int], Shown], batches: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """The accuracy on each task by readout, [T] each.

    Args:
        flow: with the weights to measure.
        chosen: readouts by name.
        tasks: a batch of tasks by its number.
        batches: of tasks; where processes share them, each takes its share.
        advance: called about once for each batch.

    Raises:
        ConfigError: a readout draws from torch's generator.
    """
    share = flow.world.share(batches)

    def measure(i: int) -> dict[str, Tensor]:
        shown = tasks(share[i])
        return {name: accuracy(_scores(readout, shown, name).double(), shown.episode.query.y).cpu() for name, readout in chosen.items()}

    with flow.world.together():
        own = in_parallel(measure, flow.model, len(share), advance)
    values = flow.world.interleaved(own)
    return {name: joined([batch[name] for batch in values]) for name in chosen}


def shown_tasks(flow: FewShotFlow, split: str, way: int, shot: int, query: int, episodes: int, embedded: bool = True) -> Callable[[int], Shown]:
    """The episodes of a measurement by the number of their batch; where they will be ``embedded``, with what can be computed once for all."""
    purpose = f"{split}/{way}w{shot}s"
    tasks = LabelledTasks(flow.splits[split], flow.pipeline.evaluate.seed, way, shot, query, BATCH)
    table = feature_table(flow, split, episodes * way * (shot + query)) if embedded else None

    def batch(i: int) -> Shown:
        rows = [of_set[: episodes - i * BATCH] for of_set in tasks.drawn(i, purpose)]
        drawn = tasks.of_rows(*rows)
        support, query = (Labelled(flow.inputs(s.x), s.y.to(flow.device)) for s in (drawn.support, drawn.query))
        known = None if table is None else lambda: (table(rows[0]), table(rows[1]))
        return Shown(flow, Episode(support, query, way, seed_for(tasks.seed, f"inner/{purpose}", i)), f"evaluate/{split}", i, known)

    return batch


def normalising(flow: Flow, statistics: str) -> AbstractContextManager[None]:
    """A context in which networks that store statistics normalise by these; see :func:`evaluate`."""
    if statistics == "stored":
        return nullcontext()
    return placed(flow.pipeline, "evaluate.statistics", lambda: current_statistics(flow.learner.model))


def _scores(readout: Readout, shown: Shown, name: str) -> Tensor:
    """The scores that a readout gives the query, once their shape is known to be right.

    Raises:
        ConfigError: it returned something else.
    """
    scores, y = readout(shown), shown.episode.query.y
    expected = (*y.shape, shown.episode.way)
    if not (isinstance(scores, Tensor) and scores.shape == expected):
        raise ConfigError(f"evaluate.readouts: {name!r} must return scores [tasks, queries, classes], a tensor {list(expected)}, got {kind_of(scores)}")
    return scores


def chosen_readouts(readouts: str | Iterable[str | Choice], plugins: Sequence[str]) -> dict[str, Readout]:
    """The readouts by name, each once."""
    entries = READOUTS.entries(plugins)
    chosen: dict[str, Readout] = {}
    for readout in [readouts] if isinstance(readouts, str) else readouts:
        choice = Choice(readout) if isinstance(readout, str) else readout
        if choice.name not in entries:
            raise ConfigError(f"readouts: there is no {choice.name!r}; {nearest(choice.name, entries)}")
        try:
            chosen.setdefault(choice.name, READOUTS.build(choice))
        except ValueError as error:
            raise ConfigError(f"evaluate.readouts: {error}") from None
    return chosen
