"""SGD by hand: two steps with momentum."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.inner.sgd import SGD


def test_two_steps_by_hand() -> None:
    rule = SGD(lr=0.5, momentum=0.5, weight_decay=1.0)
    p, g = {"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])}
    p, state = rule.update(g, rule.init(p), p)
    assert p["w"].item() == 2 - 0.5 * 3
    p, state = rule.update(g, state, p)
    assert p["w"].item() == 0.5 - 0.5 * (0.5 * 3 + 1.5)
    assert SGD().init(p) == {}


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov needs momentum, got momentum 0; set momentum"):
        SGD(nesterov=True)
