"""The linear head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from metaflowkit.config.registry import HEADS
from metaflowkit.types import Labelled


@HEADS.register("linear")
class Linear(nn.Module):
    """Scores by a linear layer whose initial rows are meta-learned: logits = W f(x) + b.

    The layer has a row per class, so a pipeline with this head is adapted with the ``way`` it was trained with.

    Args:
        features: D.
        way: N.
        initial: before training: ``xavier``, W uniform within sqrt(6 / (D + N)) and b = 0, or ``small``, both uniform within 1 / sqrt(D) as in
            torch.nn.Linear, from which MAML on images learns faster at first (docs/speed.md, Whole programs).

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017.
    """

    reads_support = False
    fixed_way = True
    metric = "cosine"

    def __init__(self, features: int, way: int, initial: Literal["xavier", "small"] = "xavier") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(way, features))
        self.bias = nn.Parameter(torch.zeros(way))
        if initial == "xavier":
            nn.init.xavier_uniform_(self.weight)
        else:
            for p in (self.weight, self.bias):
                nn.init.uniform_(p, -(features**-0.5), features**-0.5)

    def forward(self, features: Tensor, support: Labelled, way: int) -> Tensor:
        """Scores [n, N] of features [n, D]; the support set is not needed."""
        return features @ self.weight.T + self.bias
