"""Backbone and head as one module, against the two called by hand, with calls counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.models.model import Model
from metaflowkit.types import Labelled


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x).tanh()


SUPPORT = Labelled(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1]))
X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("head", "calls"), [(Prototype(), 2), (Linear(4, 2), 1)], ids=["prototype", "linear"])
def test_scores_of_other_examples(head, calls) -> None:
    backbone = Counted()
    outputs = Model(backbone, head)(SUPPORT, X, 2)
    assert backbone.calls == calls  # a head that does not read the support set does not pay for it
    torch.testing.assert_close(outputs.features, backbone(X))
    torch.testing.assert_close(outputs.logits, head(backbone(X), Labelled(backbone(SUPPORT.x), SUPPORT.y), 2))


@pytest.mark.parametrize("head", [Prototype(), Linear(4, 2)], ids=["prototype", "linear"])
def test_the_support_set_itself_is_embedded_once(head) -> None:
    backbone = Counted()
    model = Model(backbone, head)
    outputs = model(SUPPORT, None, 2)
    assert backbone.calls == 1
    same = model(SUPPORT, SUPPORT.x, 2)
    torch.testing.assert_close(outputs.features, same.features)
    torch.testing.assert_close(outputs.logits, same.logits)


def test_parameters_carry_the_names_of_their_part() -> None:
    assert [n for n, _ in Model(Counted(), Linear(4, 2)).named_parameters()] == ["backbone.layer.weight", "backbone.layer.bias", "head.weight", "head.bias"]
