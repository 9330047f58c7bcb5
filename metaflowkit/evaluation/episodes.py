"""Few-shot accuracy with 95 % confidence intervals, on fixed seeded episodes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
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
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score, joined
from metaflowkit.models.normalisation import current_statistics, stored_norms
from metaflowkit.seeding import seed_for
from metaflowkit.stages import stage
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import Episode, Labelled

BATCH = 20
V = TypeVar("V")


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
    drawn = _drawn(flow, split, way, shot, query, episodes)
    with stage(f"measuring {split} {way}-way {shot}-shot", len(flow.world.share(math.ceil(episodes / BATCH)))) as advance:
        measured = accuracies(flow, chosen, counted(drawn, advance), statistics)
    return [Score.of(split, FewShot(way, shot, query, name, statistics), ACCURACY, values) for name, values in measured.items()]


def accuracies(flow: Flow, chosen: Mapping[str, Readout], tasks: Iterable[Shown], statistics: str) -> dict[str, Tensor]:
    """The accuracy on each task by readout, [T] each.

    Args:
        flow: with the weights to measure.
        chosen: readouts by name.
        tasks: batches of tasks; where processes share them, those of this one's share.
        statistics: as in :func:`evaluate`.
    """
    with flow.world.together(), _normalising(flow, statistics):
        own = [{name: accuracy(_scores(readout, shown, name).double(), shown.episode.query.y) for name, readout in chosen.items()} for shown in tasks]
    values = flow.world.interleaved([{name: value.cpu() for name, value in batch.items()} for batch in own])
    return {name: joined([batch[name] for batch in values]) for name in chosen}


def _drawn(flow: FewShotFlow, split: str, way: int, shot: int, query: int, episodes: int) -> Iterator[Shown]:
    """The episodes of a measurement in batches, those of this process's share, with their features where these are computed once for all."""
    examples, purpose = flow.splits[split], f"{split}/{way}w{shot}s"
    tasks = LabelledTasks(examples, flow.pipeline.evaluate.seed, way, shot, query, BATCH)
    rows = LabelledTasks(dataclasses.replace(examples, x=torch.arange(len(examples.x))), tasks.seed, way, shot, query, BATCH)  # the same draws
    table = feature_table(flow, split, episodes * way * (shot + query))
    for i, episode in batches(flow, tasks, purpose, episodes):
        features = None
        if table is not None:
            count, drawn = len(episode.support.x), rows.episode(i, purpose)
            features = (table[drawn.support.x[:count].to(table.device)], table[drawn.query.x[:count].to(table.device)])
        yield Shown(flow, episode, f"evaluate/{split}", i, features)


def counted(items: Iterable[V], advance: Callable[[], None]) -> Iterator[V]:
    """The same items; ``advance`` is called once each of them has been worked on."""
    for item in items:
        yield item
        advance()


def _normalising(flow: Flow, statistics: str) -> AbstractContextManager[None]:
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


def batches(flow: FewShotFlow, tasks: LabelledTasks, purpose: str, episodes: int) -> Iterator[tuple[int, Episode]]:
    """Episodes of labelled tasks as the model reads them, the requested number of them, in numbered batches; those of this process's share."""
    for i in flow.world.share(math.ceil(episodes / BATCH)):
        episode = tasks.episode(i, purpose)
        count = min(BATCH, episodes - i * BATCH)
        support, query = (Labelled(flow.inputs(s.x[:count]), s.y[:count].to(flow.device)) for s in (episode.support, episode.query))
        yield i, Episode(support, query, episode.way, seed_for(tasks.seed, f"inner/{purpose}", i))
