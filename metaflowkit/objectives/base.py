"""The contract of an outer objective."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metaflowkit.types import Adapted, Episode


class Objective(Protocol):
    """What the outer loop minimises, of one task.

    Attributes:
        further_steps: how many inner steps it takes beyond those of the student.
        needs_classes: whether it compares the classes of few-shot tasks, whose support and query are ``(x, y)`` with labels y.
        average_decay: d of the moving average of the meta-parameters that ``adapted.restart`` starts from, after each outer step
            average <- d average + (1 - d) theta; None where it reads none.
    """

    further_steps: int = 0
    needs_classes: bool = False
    average_decay: float | None = None

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value and metrics.

        Args:
            adapted: the task's student, with the functions for further inner steps.
            task: one task, without the leading axis of a batch.

        Returns:
            A scalar, and named scalars that a run reports.
        """
