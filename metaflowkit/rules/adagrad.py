"""Adagrad as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import NonNegative, Positive
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed, safe_sqrt


@RULES.register("adagrad")
class Adagrad(PerTensor):
    """Adagrad: s <- s + g^2; p <- p - lr / (1 + (t-1) d) g / (sqrt(s) + eps).

    Args:
        lr: step size.
        lr_decay: d, makes the step size fall with the step t.
        initial: where the sum of squares s starts.
        eps: added to the root.
        weight_decay: added to the gradient (L2).

    Reference:
        J. Duchi, E. Hazan, Y. Singer, Adaptive Subgradient Methods, JMLR 2011; as in torch.optim.Adagrad.
    """

    def __init__(
        self, lr: Positive = 0.01, lr_decay: NonNegative = 0.0, initial: NonNegative = 0.0, eps: Positive = 1e-10, weight_decay: NonNegative = 0.0
    ) -> None:
        self.initial = initial
        self.settings = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """The sum of squares before the first step."""
        return {"sum": torch.full_like(p, self.initial)}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, lr_decay: Value, eps: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        total = state["sum"] + g * g
        return p - lr / (1 + (count - 1) * lr_decay) * g / (safe_sqrt(total) + eps), {"sum": total}
