"""The head of a policy with continuous actions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metaflowkit.config.registry import HEADS
from metaflowkit.config.schema import Positive
from metaflowkit.types import Labelled


@HEADS.register("normal")
class Normal(nn.Module):
    """Mean and logarithmic deviation of a normal distribution for each output: m = W f(x) + b, and a learned s that does not depend on x.

    Args:
        features: D.
        way: number of outputs A.
        deviation: to begin with.
    """

    reads_support = False
    fixed_way = True
    metric = "cosine"

    def __init__(self, features: int, way: int, deviation: Positive = 0.1) -> None:
        super().__init__()
        self.mean = nn.Linear(features, way)
        self.log_deviation = nn.Parameter(torch.full((way,), math.log(deviation)))

    def forward(self, features: Tensor, support: Labelled | None, way: int) -> Tensor:
        """Mean and logarithmic deviation [n, 2 A] of features [n, D]; the support set is not needed."""
        mean = self.mean(features)
        return torch.cat([mean, self.log_deviation.expand_as(mean)], -1)
