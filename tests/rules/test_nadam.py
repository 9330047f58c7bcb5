"""NAdam by hand: the first step looks ahead along the mean."""

from __future__ import annotations

import torch

from metaflowkit.rules.nadam import NAdam

G = {"w": torch.tensor([2.0, -0.5], dtype=torch.float64)}
P = {"w": torch.ones(2, dtype=torch.float64)}


def test_first_step_by_hand() -> None:
    rule = NAdam(lr=0.1, beta1=0.5, beta2=0.5, eps=1.0, momentum_decay=0.0)  # without decay mu is b1 / 2 at every step
    p, _ = rule.update(G, rule.init(P), P)
    ahead = 0.75 * 2 / (1 - 0.25) + 0.25 * 1 / (1 - 0.25**2)
    torch.testing.assert_close(p["w"][0].item(), 1 - 0.1 * ahead / (2 + 1))
