"""The accuracy against counting by hand, with leading axes."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.criteria import accuracy


@pytest.mark.parametrize(("y", "share"), [([0, 1, 2, 0], 1.0), ([0, 1, 2, 1], 0.75), ([1, 2, 0, 2], 0.0)])
def test_counted_by_hand(y, share) -> None:
    logits = torch.tensor([[3.0, 1, 2], [-2, -1, -3], [0, 1, 2], [9, 8, 7]])
    assert accuracy(logits, torch.tensor(y)).item() == share


def test_leading_axes_stay_and_the_type_is_that_of_the_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64), torch.randint(0, 4, (2, 3, 7), generator=generator)
    found = accuracy(logits, y)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            hits = sum(max(range(4), key=lambda k: logits[i, j, n, k].item()) == y[i, j, n].item() for n in range(7))
            assert found[i, j].item() == pytest.approx(hits / 7)
