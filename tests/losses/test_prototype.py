"""The leave-one-out prototype loss against a plain loop."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.losses.prototype import PrototypeLoss
from metaflowkit.types import Outputs


@pytest.mark.parametrize(("metric", "temperature"), [("cosine", 0.1), ("euclidean", 1.0), ("semi_normalised", 1.0)])
def test_against_the_loop(metric, temperature) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = [0, 1, 2, 0, 1, 2, 0]
    total = 0.0
    for i in range(7):
        scores = []
        for k in range(3):
            c = torch.stack([x[j] for j in range(7) if y[j] == k and j != i]).mean(0)
            product = torch.dot(x[i], c) / c.norm()
            scores.append({"cosine": product / x[i].norm(), "euclidean": -(x[i] - c).square().sum(), "semi_normalised": product}[metric])
        total -= (torch.stack(scores) / temperature).log_softmax(0)[y[i]].item()
    value = PrototypeLoss(metric)(Outputs(x, torch.zeros(7, 3)), torch.tensor(y))
    assert value.item() == pytest.approx(total / 7, rel=1e-9)
