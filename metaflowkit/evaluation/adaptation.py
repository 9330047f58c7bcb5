"""Evaluation of tasks with their own measurement, before and after inner steps, on held-out tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from metaflowkit.composition.flow import Flow
from metaflowkit.engines.contract import kind_of
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.scores import AdaptationSetting, Score, joined
from metaflowkit.seeding import seed_for
from metaflowkit.trees import Call
from metaflowkit.types import Episode, task_count

BATCH = 20


def _measured(tasks: Any, call: Call, task: Episode) -> torch.Tensor:
    """What the tasks measure, once it is known to be a scalar or a value for each example.

    Raises:
        ConfigError: it is something else.
    """
    value = tasks.measure(call, task)
    if not isinstance(value, torch.Tensor) or value.dim() > 1:
        raise ConfigError(f"tasks: measure(call, task) must return a tensor, a scalar or [n], got {kind_of(value)}; reduce it")
    return value


def _adapted(flow: Flow, episode: Episode, steps: int) -> torch.Tensor:
    """The measurement of each task after so many inner steps."""
    values: torch.Tensor = dataclasses.replace(flow.learner, steps=steps).adapt(episode.support, episode, partial(_measured, flow.tasks)).read
    return values.cpu()


def evaluate_adaptation(flow: Flow, split: str = "test", shot: int = 1, steps: Iterable[int] = (0, 1), episodes: int = 600) -> list[Score]:
    """Adapt by each number of inner steps, and measure.

    Args:
        flow: a built pipeline, of tasks with their own measurement, with the weights to measure.
        split: ``val`` or ``test``.
        shot: support examples of a task, where the tasks allow a choice.
        steps: numbers of inner steps; the tasks are the same for all.
        episodes: tasks; fewer where no more were held out.

    Returns:
        One score per number of steps.

    Raises:
        ConfigError: a number is too small, or the tasks give no value.
        DataError: there is no such split.
    """
    tasks = flow.tasks
    if tasks is None or not flow.measured:
        raise ConfigError("evaluate: these tasks are few-shot classification; call metaflowkit.evaluate")
    if split not in ("val", "test"):
        raise DataError(f"split {split!r}: tasks are held out for val and test; choose one of them")
    counts = list(dict.fromkeys(steps))
    for argument, value, least in (("shot", shot, 1), ("episodes", episodes, 2), ("steps", min(counts, default=-1), 0)):
        if value < least:
            raise ConfigError(f"{argument}: must be at least {least}, got {value}; raise it")
    own: list[dict[int, torch.Tensor]] = []
    limit = total = 0  # tasks that were requested, and that were held out
    for i in range(math.ceil(episodes / BATCH)):
        limit += min(BATCH, episodes - limit)
        episode = tasks.held_out(split, i, limit - total, shot)  # type: ignore[attr-defined]
        support, query = flow.placed((episode.support, episode.query))
        episode = episode._replace(support=support, query=query, seed=seed_for(flow.pipeline.evaluate.seed, f"inner/{split}", i))
        if i % flow.world.size == flow.world.rank:
            own.append({count: _adapted(flow, episode, count) for count in counts})
        if task_count(episode) > limit - total:
            raise ConfigError(f"tasks: held_out must return at most {limit - total} tasks, the count that it is given, got {task_count(episode)}")
        total += task_count(episode)
        if total < limit:
            break  # no more were held out
    values, metric = flow.world.interleaved(own), flow.pipeline.metric
    joint = {count: joined([batch[count] for batch in values]) for count in counts}
    return [
        Score.of(split, AdaptationSetting(shot, count), metric, each, counted="held-out tasks" if len(each) == total else "held-out examples")
        for count, each in joint.items()
    ]
