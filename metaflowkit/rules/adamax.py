"""Adamax as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, NonNegative, Positive
from metaflowkit.rules.adam import check_betas
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed


@RULES.register("adamax")
class Adamax(PerTensor):
    """Adamax: m <- b1 m + (1-b1) g; u <- max(b2 u, |g| + eps); p <- p - lr / (1 - b1^t) m / u.

    Args:
        lr: step size.
        beta1: decay of the mean m.
        beta2: decay of the largest size u.
        eps: added to |g|.
        weight_decay: added to the gradient (L2).

    Raises:
        ValueError: a decay of 1.

    Reference:
        D. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 2; as in torch.optim.Adamax.
    """

    def __init__(self, lr: Positive = 0.002, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.0) -> None:
        check_betas(beta1, beta2)
        self.settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero mean and size."""
        return {"mean": torch.zeros_like(p), "size": torch.zeros_like(p)}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, beta1: Value, beta2: Value, eps: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        mean = beta1 * state["mean"] + (1 - beta1) * g
        size = torch.maximum(beta2 * state["size"], g.abs() + eps)
        return p - lr / (1 - beta1**count) * mean / size, {"mean": mean, "size": size}
