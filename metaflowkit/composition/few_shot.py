"""Pipelines on the core, which knows no classes: what their model is called with, and what is read from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.recomputation import no_recomputation
from metaflowkit.errors import ConfigError
from metaflowkit.losses.base import Loss
from metaflowkit.models.model import Model
from metaflowkit.seeding import seeded
from metaflowkit.types import Call, Episode, Labelled, Outputs


@dataclass(frozen=True)
class SupportLoss:
    """A loss of outputs and labels as the inner loss on a few-shot task's support set.

    Attributes:
        loss: (outputs of the support set, labels [n]) -> scalar.
    """

    loss: Loss

    def __call__(self, call: Call, batch: Labelled) -> Tensor:
        """The loss, scalar."""
        return self.loss(call(None), batch.y)


@dataclass(frozen=True)
class InsideLoss:
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
    """A loss of outputs and targets on a batch ``(x, y)``, which may have been drawn with the parameters at hand.

    Attributes:
        loss: (outputs, targets) -> scalar.
    """

    loss: Loss

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


def check_backbone(model: Model, examples: Tensor) -> None:
    """Call the backbone once as the inner loop does, to refuse before a run what can only be seen in its ``forward``.

    Args:
        model: whose backbone.
        examples: two of those that it reads, [2, *input].

    Raises:
        ConfigError: it calls ``torch.utils.checkpoint``.
    """
    with torch.enable_grad(), no_recomputation(), seeded(0, examples.device), TaskBuffers(model).within(model):
        model.backbone(examples)
