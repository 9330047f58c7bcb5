"""Losses and scores of pipelines in the terms of the engines, which have no notion of classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metaflowkit.errors import ConfigError
from metaflowkit.losses.base import Loss
from metaflowkit.trees import Call
from metaflowkit.types import Episode, Labelled, Outputs


@dataclass(frozen=True)
class SupportLoss:
    """A loss of outputs and labels as the inner loss on a few-shot task's support set.

    Attributes:
        loss: (outputs of the support set, labels [n]) -> scalar.
    """

    loss: Loss

    @property
    def __wrapped__(self) -> Loss:
        """The loss, by which messages name this one."""
        return self.loss

    def __call__(self, call: Call, batch: Labelled) -> Tensor:
        """The loss, scalar."""
        return self.loss(call(None), batch.y)


@dataclass(frozen=True)
class ModelLoss:
    """The inner loss where the model computes it, since loss or augmentation have meta-parameters of their own.

    Attributes:
        few_shot: whether the batch is the support set that the model reads; otherwise its inputs are given.
    """

    few_shot: bool

    def __call__(self, call: Call, batch: Labelled) -> Tensor:
        """The loss, scalar."""
        return call(None if self.few_shot else batch.x, batch.y)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class BatchLoss:
    """A loss of outputs and targets on a batch ``(x, y)``, which may have been drawn with the current parameters.

    Attributes:
        loss: (outputs, targets) -> scalar.
    """

    loss: Loss

    @property
    def __wrapped__(self) -> Loss:
        """The loss, by which messages name this one."""
        return self.loss

    def __call__(self, call: Call, batch: Labelled) -> Tensor:
        """The loss, scalar.

        Raises:
            ConfigError: what was drawn is no ``(x, y)``.
        """
        if not (isinstance(batch, tuple) and len(batch) == 2):
            raise ConfigError(f"tasks: sample(call, batch, draw) must return (x, y), got {type(batch).__name__}; return Labelled(x, y)")
        x, y = batch
        return self.loss(call(x), y)


def query_scores(call: Call, task: Episode) -> Tensor:
    """Scores of a task's query set, [n, N]."""
    outputs: Outputs = call(task.query[0])
    return outputs.logits
