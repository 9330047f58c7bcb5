"""The contracts of outer optimisers, schedules and metric loggers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from metaflowkit.training.events import Event


class OuterOptimizer(Protocol):
    """A class of outer optimisers, or a function that makes one; its further arguments are settings.

    What it makes is used as any of torch's: the outer loop writes meta-gradients to ``.grad``, multiplies the learning rate of its
    parameter groups, ``lr``, with the schedule's factor, calls ``step()``, and keeps its state dict in checkpoints.
    """

    def __call__(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser.

        Args:
            parameters: the meta-parameters that the outer loop moves.
        """


class Schedule(Protocol):
    """The factor of the outer learning rate at each outer step. The constructor may ask for ``steps``, the outer steps of the whole run."""

    def __call__(self, step: int) -> float:
        """The factor, at least 0.

        Args:
            step: of the outer loop, from 1.
        """


class MetricLogger(Protocol):
    """Receives every event of training, from ``mfk run`` and :func:`metaflowkit.train`."""

    def log(self, event: Event) -> None:
        """Process an event; the first is :class:`~metaflowkit.training.events.Started`, with the run directory and the flow.

        A run that goes on after an interruption begins with it too: the steps after the last :class:`~metaflowkit.training.events.Saved` are repeated.

        Args:
            event: one of :mod:`metaflowkit.training.events`, in the order in which they happen.
        """
