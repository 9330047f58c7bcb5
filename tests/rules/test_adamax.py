"""Adamax by hand: the first step goes lr g / (|g| + eps); a smaller second gradient meets the decayed first size."""

from __future__ import annotations

import torch

from metaflowkit.rules.adamax import Adamax

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_two_steps_by_hand() -> None:
    rule = Adamax(lr=0.1, beta1=0.5, beta2=0.5, eps=0.5)
    p, state = rule.update(G, rule.init(P), P)
    torch.testing.assert_close(p["w"], 1 - torch.tensor([0.1 * 2 / 2.5, -0.1 * 0.5 / 1.0], dtype=torch.float64))
    after, _ = rule.update({"w": torch.zeros(2, dtype=torch.float64)}, state, p)
    torch.testing.assert_close((p["w"] - after["w"])[0].item(), 0.1 / 0.75 * 0.5 / 1.25)
