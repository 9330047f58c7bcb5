"""Few-shot classification on the core, which knows no classes: what its model is called with, and what is read from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.recomputation import no_recomputation
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


def query_scores(call: Call, task: Episode) -> Tensor:
    """Scores of a task's query set, [n, N]."""
    outputs: Outputs = call(task.query.x)
    return outputs.logits


def check_backbone(model: Model, shape: tuple[int, ...]) -> None:
    """Call the backbone once as the inner loop does, to refuse before a run what can only be seen in its ``forward``.

    Args:
        model: whose backbone.
        shape: of an image, (C, H, W).

    Raises:
        ConfigError: it calls ``torch.utils.checkpoint``.
    """
    like = next(iter(model.parameters()))
    with torch.enable_grad(), no_recomputation(), seeded(0, like.device), TaskBuffers(model).within(model):
        model.backbone(torch.rand(2, *shape).to(like))
