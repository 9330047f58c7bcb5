"""Adam by hand: the first step goes lr g / (|g| + eps), with eps outside the root."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.rules.adam import Adam


def test_first_step_by_hand() -> None:
    rule = Adam(lr=0.1, eps=0.5)
    p = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    after, state = rule.update({"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}, rule.init(p), p)
    torch.testing.assert_close(after["w"], torch.tensor([1 - 0.1 * 2 / 2.5, 1 + 0.1 * 0.5 / 1.0], dtype=torch.float64))
    assert state["step"] == 1


def test_betas_lie_below_one() -> None:
    with pytest.raises(ValueError, match="beta1 and beta2 must lie below 1, got 1.0 and 0.9; lower them"):
        Adam(beta1=1.0, beta2=0.9)
