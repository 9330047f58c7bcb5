"""RMSprop by hand: the first step divides by the root of (1 - a) g^2, centered by that of a (1 - a) g^2."""

from __future__ import annotations

import torch

from metaflowkit.rules.rmsprop import RMSprop

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_first_step_by_hand() -> None:
    after, _ = RMSprop(lr=0.1, alpha=0.75, eps=0.5).update(G, RMSprop().init(P), P)
    torch.testing.assert_close(after["w"], torch.tensor([1 - 0.1 * 2 / 1.5, 1 + 0.1 * 0.5 / 0.75], dtype=torch.float64))


def test_centered_with_momentum_by_hand() -> None:
    rule = RMSprop(lr=0.1, alpha=0.5, eps=0.5, momentum=0.5, centered=True)
    p, state = rule.update(G, rule.init(P), P)
    first = torch.tensor([2 / 1.5, -0.5 / 0.75], dtype=torch.float64)
    torch.testing.assert_close(p["w"], 1 - 0.1 * first)
    p, _ = rule.update(G, state, p)
    deviation = torch.tensor([2.0, 0.5], dtype=torch.float64) * (0.75 - 0.75**2) ** 0.5
    torch.testing.assert_close(p["w"], 1 - 0.1 * first - 0.1 * (0.5 * first + G["w"] / (deviation + 0.5)))
