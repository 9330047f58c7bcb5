"""Adadelta by hand: the first step is sqrt(eps) / sqrt((1 - r) g^2 + eps) g."""

from __future__ import annotations

import torch

from metaflowkit.rules.adadelta import Adadelta

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_two_steps_by_hand() -> None:
    rule = Adadelta(rho=0.5, eps=0.25)
    p, state = rule.update(G, rule.init(P), P)
    torch.testing.assert_close(p["w"][0].item(), 1 - 0.5 / 1.5 * 2)
    after, _ = rule.update(G, state, p)
    moved = 0.5 * (0.5 / 1.5 * 2) ** 2
    torch.testing.assert_close((p["w"] - after["w"])[0].item(), (moved + 0.25) ** 0.5 / 3.25**0.5 * 2)
