"""Regression of sinusoids."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Examples, Natural
from metaflowkit.criteria import Regression
from metaflowkit.seeding import generator_for
from metaflowkit.trees import Call
from metaflowkit.types import Episode, Labelled


@TASKS.register("sinusoid")
class Sinusoid:
    """A task is a sinusoid y = a sin(x - b), of amplitude a in [0.1, 5] and phase b in [0, pi]; x is drawn from [-5, 5], all uniformly.

    Measured is the mean squared error on further points of a held-out sinusoid, after some inner steps on K points.

    Args:
        seed: the run's seed.
        evaluation_seed: of the tasks that are measured.
        shot: points that a task is learned from (K).
        query: points that the outer loss is read on.
        meta_batch: sinusoids per outer step (T).
        points: of a held-out sinusoid on which the error is measured.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.1.
    """

    reads_data = False
    reads_labels = False
    measured = True
    metric = "mse"
    higher_is_better = False
    percent = False
    criterion = Regression()
    shape = (1,)
    outputs = 1

    def __init__(
        self, seed: Natural, evaluation_seed: Natural = 0, shot: Examples = 10, query: Examples = 10, meta_batch: Examples = 25, points: Examples = 100
    ) -> None:
        self.seed, self.evaluation_seed, self.shot, self.query, self.meta_batch, self.points = seed, evaluation_seed, shot, query, meta_batch, points

    def episode(self, step: int) -> Episode:
        """Points (x, y) of T sinusoids, [T, K, 1] and [T, query, 1]."""
        return self._drawn(self.seed, "train", step, self.meta_batch, self.shot, self.query)

    def held_out(self, split: str, index: int, count: int, shot: int) -> Episode:
        """Sinusoids of another stream; see :class:`metaflowkit.tasks.base.MeasuredTasks`."""
        return self._drawn(self.evaluation_seed, split, index, count, shot, self.points)

    def measure(self, call: Call, task: Episode) -> Tensor:
        """The mean squared error on the query."""
        return self.criterion.loss(call(task.query.x).logits, task.query.y)

    def _drawn(self, seed: int, purpose: str, index: int, count: int, shot: int, query: int) -> Episode:
        generator = generator_for(seed, f"tasks/{purpose}", index)
        amplitude, phase = (torch.rand(count, 1, 1, generator=generator) for _ in range(2))
        x = 10 * torch.rand(count, shot + query, 1, generator=generator) - 5
        y = (0.1 + 4.9 * amplitude) * (x - math.pi * phase).sin()
        return Episode(Labelled(x[:, :shot], y[:, :shot]), Labelled(x[:, shot:], y[:, shot:]))
