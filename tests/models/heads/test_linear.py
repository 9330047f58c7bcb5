"""The linear head against torch.nn.functional.linear."""

from __future__ import annotations

import torch

from metaflowkit.models.heads.linear import Linear
from metaflowkit.types import Labelled


def test_scores_do_not_look_at_the_support_set() -> None:
    head = Linear(4, 3)
    torch.nn.init.normal_(head.bias)
    x = torch.rand(5, 4)
    support = Labelled(torch.rand(3, 4), torch.arange(3))
    torch.testing.assert_close(head(x, support, 3), torch.nn.functional.linear(x, head.weight, head.bias))
