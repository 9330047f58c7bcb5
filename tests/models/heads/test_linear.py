"""The linear head against torch.nn.functional.linear."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.heads.linear import Linear
from metaflowkit.types import Labelled


def test_scores_do_not_look_at_the_support_set() -> None:
    head = Linear(4, 3)
    torch.nn.init.normal_(head.bias)
    x = torch.rand(5, 4)
    support = Labelled(torch.rand(3, 4), torch.arange(3))
    torch.testing.assert_close(head(x, support, 3), torch.nn.functional.linear(x, head.weight, head.bias))


@pytest.mark.parametrize(("initial", "bound"), [("xavier", (6 / (400 + 100)) ** 0.5), ("small", 400**-0.5)])
def test_initial_values_lie_evenly_within_their_bound(initial, bound) -> None:
    torch.manual_seed(0)
    head = Linear(400, 100, initial)
    assert 0.999 * bound < head.weight.abs().max() <= bound
    torch.testing.assert_close(head.weight.std().item(), bound / 3**0.5, rtol=0.01, atol=0)
    assert (0.9 * bound < head.bias.abs().max() <= bound) if initial == "small" else not head.bias.any()
