"""The tasks' own loss: that of the criterion, and cross-entropy where none is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import LOSSES
from metaflowkit.criteria import Regression
from metaflowkit.types import Outputs

G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 3, generator=G)


def test_it_is_the_criterions() -> None:
    y = torch.randn(6, 3, generator=G)
    assert torch.equal(LOSSES.build(Choice("task"), criterion=Regression())(LOGITS, y), F.mse_loss(LOGITS, y))


def test_without_a_criterion_it_is_cross_entropy_of_outputs_or_scores() -> None:
    y, loss = torch.tensor([0, 1, 2, 0, 1, 2]), LOSSES.build(Choice("task"))
    assert torch.equal(loss(Outputs(LOGITS, LOGITS), y), F.cross_entropy(LOGITS, y))
    assert torch.equal(loss(LOGITS, y), F.cross_entropy(LOGITS, y))
