"""SGD by hand: two steps with momentum."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.rules.sgd import SGD


def test_two_steps_by_hand() -> None:
    rule = SGD(lr=0.5, momentum=0.5, weight_decay=1.0)
    p, g = {"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])}
    p, state = rule.update(g, rule.init(p), p)
    assert p["w"].item() == 2 - 0.5 * 3
    p, state = rule.update(g, state, p)
    assert p["w"].item() == 0.5 - 0.5 * (0.5 * 3 + 1.5)
    assert SGD().init(p) == {"step": 0, "tensors": {"w": {}}}


def test_dampening_spares_the_first_gradient() -> None:
    rule = SGD(lr=1.0, momentum=0.5, dampening=0.25)
    p, g = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
    p, state = rule.update(g, rule.init(p), p)
    assert p["w"].item() == -1
    assert rule.update(g, state, p)[0]["w"].item() == -1 - (0.5 + 0.75)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov needs momentum, got momentum 0; set momentum"):
        SGD(nesterov=True)
    with pytest.raises(ValueError, match="nesterov goes without dampening, got dampening 0.1"):
        SGD(nesterov=True, momentum=0.9, dampening=0.1)
