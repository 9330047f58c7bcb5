"""AdamW by hand: the decay shrinks the parameter and leaves the gradient's scale out of it."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.rules.adamw import AdamW

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_first_step_by_hand() -> None:
    after, _ = AdamW(lr=0.1, eps=0.5, weight_decay=0.3).update(G, AdamW().init(P), P)
    torch.testing.assert_close(after["w"], torch.tensor([0.97 - 0.1 * 2 / 2.5, 0.97 + 0.1 * 0.5 / 1.0], dtype=torch.float64))


def test_betas_lie_below_one() -> None:
    with pytest.raises(ValueError, match="must lie below 1"):
        AdamW(beta2=1.0)
