"""The contract of a task sampler: the check of the first tasks that any sampler, also a plugin's, returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaflowkit.tasks.base import MeasuredTasks
from metaflowkit.types import Episode, task_count


def check_episode(episode: Any, shape: tuple[int, ...]) -> int:
    """Check an episode of a few-shot task sampler.

    Args:
        episode: what ``episode(step)`` returned: images [T, n, C, H, W] and their classes, int64 [T, n] in 0..way-1.
        shape: (C, H, W) of the data set's images.

    Returns:
        Support examples per task.

    Raises:
        ValueError: with what was expected and what was returned.
    """
    if not isinstance(episode, Episode):
        raise ValueError(f"episode(step) must return an Episode, got {type(episode).__name__}; return Episode(support, query, way)")
    counts = []
    for role in ("support", "query"):
        examples = getattr(episode, role)
        x, y = getattr(examples, "x", None), getattr(examples, "y", None)
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise ValueError(f"episode(step).{role} must be Labelled(x, y) with tensors, got {type(examples).__name__}")
        if x.dim() != 2 + len(shape) or x.shape[2:] != shape:
            axes = ", ".join(map(str, shape))
            raise ValueError(f"episode(step).{role}.x must have the shape [tasks, examples, {axes}], got {list(x.shape)}; give the data set's images")
        if y.dtype != torch.int64 or y.shape != x.shape[:2]:
            raise ValueError(f"episode(step).{role}.y must be int64 of shape {list(x.shape[:2])}, got {str(y.dtype).removeprefix('torch.')} {list(y.shape)}")
        if y.numel() == 0 or y.min() < 0 or y.max() >= episode.way:
            raise ValueError(f"episode(step).{role}.y must hold classes of 0 to {episode.way - 1} (way - 1), and at least one")
        counts.append(len(x))
    if counts[0] != counts[1]:
        raise ValueError(f"episode(step) must have as many tasks in support and query, got {counts[0]} and {counts[1]}")
    return int(episode.support.x.shape[1])


def check_measured(tasks: MeasuredTasks) -> int:
    """Check the first episodes of tasks with their own measurement.

    Returns:
        Support examples per task; 0 where they are drawn with the current parameters.

    Raises:
        ValueError: with what was expected and what was returned.
    """
    first = tasks.episode(1)
    for name, episode in (("episode(1)", first), ("held_out('val', 0, 2, 1)", tasks.held_out("val", 0, 2, 1))):
        if not isinstance(episode, Episode):
            raise ValueError(f"{name} must return an Episode, got {type(episode).__name__}; return Episode(support, query)")
        task_count(episode)
        for role in () if tasks.samples else ("support", "query"):
            examples = getattr(episode, role)
            if not (isinstance(examples, tuple) and len(examples) == 2 and isinstance(examples[0], Tensor)):
                raise ValueError(f"{name}.{role} must be (x, y) with a tensor x, got {type(examples).__name__}")
            if tuple(examples[0].shape[2:]) != tuple(tasks.shape):
                axes = ", ".join(map(str, tasks.shape))
                raise ValueError(f"{name}.{role}: x must have the shape [tasks, examples, {axes}], as the attribute shape says, got {list(examples[0].shape)}")
    return 0 if tasks.samples else int(first.support[0].shape[1])
