"""The policy head: a linear mean, and a deviation that starts where it is told."""

from __future__ import annotations

import math

import torch

from metaflowkit.models.heads.normal import Normal


def test_mean_and_logarithmic_deviation() -> None:
    head = Normal(4, 3, deviation=0.2)
    x = torch.randn(5, 4)
    mean, log_deviation = head(x, None, 0).chunk(2, -1)
    torch.testing.assert_close(mean, x @ head.mean.weight.T + head.mean.bias)
    torch.testing.assert_close(log_deviation, torch.full((5, 3), math.log(0.2)))
    assert {name for name, _ in head.named_parameters()} == {"mean.weight", "mean.bias", "log_deviation"}
