"""The contracts of tasks to learn from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metaflowkit.trees import Call, Tree
from metaflowkit.types import Criterion, Episode


class Tasks(Protocol):
    """Tasks to learn from.

    The constructor may ask for ``images``, the training examples [n, *shape], such as images [n, C, H, W], or, where it reads
    labels, the whole :class:`~metaflowkit.types.ExampleSet`; and for the run's ``seed``.

    Attributes:
        reads_data: whether they are made of a data set's examples; others are a family that makes its own examples and defines its own measurement.
        reads_labels: whether it may see the labels of the training examples.
        fixed_support: whether the support is the same at every step and in every measurement.
        measured: whether it defines its own measurement, as :class:`MeasuredTasks` does; otherwise tasks are few-shot classification.
    """

    reads_data: bool = True
    reads_labels: bool = True
    fixed_support: bool = False
    measured: bool = False

    def episode(self, step: int) -> Episode:
        """The tasks of an outer step, before augmentation; the same for the same seed and step.

        Args:
            step: of the outer loop, from 1; calibration asks for steps below it.
        """


class MeasuredTasks(Tasks, Protocol):
    """Tasks that are not few-shot classification: regression, control, a bilevel problem.

    Their episodes are ``(x, y)`` in support and query, or batches from which :meth:`sample` draws ``(x, y)``. The constructor may also
    ask for ``splits``, all the examples of the data set where they read one, and for ``evaluation_seed``, the seed of the tasks to
    measure on (``evaluate.seed``), so that runs with other seeds are measured on the same tasks.

    Attributes:
        samples: whether examples are drawn with the current parameters, by :meth:`sample`.
        draws: how many draws a support has, hence the largest number of inner steps; None for any number.
        metric: name of the value of :meth:`measure`, one word, such as ``mse``.
        higher_is_better: whether more of it is better.
        percent: whether it is a share, to be shown in per cent.
        criterion: what the model's outputs mean, and the loss of the tasks.
        shape: of the model's input, without the axis of the examples.
        outputs: how many numbers the model gives for an input.
    """

    measured: bool = True
    samples: bool = False
    draws: int | None = None
    metric: str = "accuracy"
    higher_is_better: bool = True
    percent: bool = True
    criterion: Criterion
    shape: tuple[int, ...]
    outputs: int

    def held_out(self, split: str, index: int, count: int, shot: int) -> Episode:
        """Tasks to measure on, none of those that are learned from; the same for the same evaluation seed, split and index.

        Args:
            split: ``val`` or ``test``.
            index: of the batch, from 0.
            count: tasks at most.
            shot: support examples, as ``evaluate.shot`` says.
        """

    def measure(self, call: Call, task: Episode) -> Tensor:
        """The measurement of a model that adapted to a task, without graph: a scalar, or a value for each of the query's examples [n].

        Args:
            call: inputs [n, *shape] -> the model's outputs, with ``logits`` [n, outputs].
            task: one task.
        """

    def sample(self, call: Call, batch: Tree, draw: int) -> Tree:
        """Examples ``(x, y)`` drawn with the current parameters, without graph.

        Args:
            call: as in :meth:`measure`.
            batch: a task's support in inner step ``draw`` (from 0), or its query.
            draw: which of the draws from this batch; everything random must depend on it and on the batch alone.
        """
