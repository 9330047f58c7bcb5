"""The supervised-contrastive loss against a plain loop over anchors and positives."""

from __future__ import annotations

import math

import pytest
import torch

from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.types import Outputs


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_against_the_loop(temperature) -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = [0, 1, 0, 1, 1, 0]
    z = [v / v.norm() for v in x]
    total = 0.0
    for i in range(6):
        others = [math.exp(float(z[i] @ z[a]) / temperature) for a in range(6) if a != i]
        positives = [p for p in range(6) if p != i and y[p] == y[i]]
        total += -sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / sum(others)) for p in positives) / len(positives)
    found = Contrastive(temperature)(Outputs(x, x), torch.tensor(y))
    assert found.item() == pytest.approx(total / 6, rel=1e-9)
