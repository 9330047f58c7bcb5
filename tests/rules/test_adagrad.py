"""Adagrad by hand: two steps with a falling step size."""

from __future__ import annotations

import torch

from metaflowkit.rules.adagrad import Adagrad

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_two_steps_by_hand() -> None:
    rule = Adagrad(lr=0.1, lr_decay=1.0, initial=5.0, eps=1.0)
    p, state = rule.update(G, rule.init(P), P)
    torch.testing.assert_close(p["w"], 1 - torch.tensor([0.1 * 2 / 4, -0.1 * 0.5 / (5.25**0.5 + 1)], dtype=torch.float64))
    after, _ = rule.update(G, state, p)
    torch.testing.assert_close((p["w"] - after["w"])[0].item(), 0.05 * 2 / (13**0.5 + 1))
