"""The loss of the tasks, as the inner loss."""

from __future__ import annotations

from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.criteria import Classification
from metaflowkit.trees import Tree
from metaflowkit.types import Criterion, Outputs, scores_of


@LOSSES.register("task")
class TaskLoss:
    """The loss of the tasks: cross-entropy of classes, squared error of regression, the policy gradient of control.

    Args:
        criterion: of the tasks; None for classification.
    """

    needs_pairs = False

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion = criterion or Classification()

    def __call__(self, outputs: Outputs | Tensor, y: Tree) -> Tensor:
        """The loss, scalar, of outputs for n examples and their targets."""
        return self.criterion.loss(scores_of(outputs), y)
