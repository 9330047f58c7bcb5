"""Cross-entropy against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.types import Outputs


def test_against_the_loop() -> None:
    scores, y = [[1.0, 2.0], [0.5, -1.0], [3.0, 3.0]], [0, 0, 1]
    expected = -sum(math.log(math.exp(row[k]) / sum(map(math.exp, row))) for row, k in zip(scores, y)) / 3
    value = CrossEntropy()(Outputs(torch.rand(3, 4), torch.tensor(scores)), torch.tensor(y))
    assert value.item() == pytest.approx(expected, rel=1e-6)
