"""Adadelta as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, NonNegative, Positive
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed


@RULES.register("adadelta")
class Adadelta(PerTensor):
    """Adadelta: v <- r v + (1-r) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u <- r u + (1-r) d^2; p <- p - lr d.

    Args:
        lr: step size; 1 is the paper's.
        rho: r, decay of both mean squares.
        eps: added under the roots.
        weight_decay: added to the gradient (L2).

    Reference:
        M. Zeiler, ADADELTA: An Adaptive Learning Rate Method, arXiv 1212.5701, algorithm 1; as in torch.optim.Adadelta.
    """

    def __init__(self, lr: Positive = 1.0, rho: Decay = 0.9, eps: Positive = 1e-6, weight_decay: NonNegative = 0.0) -> None:
        self.settings = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero mean squares of gradients and of updates."""
        return {"square": torch.zeros_like(p), "moved": torch.zeros_like(p)}

    def step(self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, rho: Value, eps: Value, weight_decay: Value) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        square = rho * state["square"] + (1 - rho) * g * g
        d = (state["moved"] + eps).sqrt() / (square + eps).sqrt() * g
        return p - lr * d, {"square": square, "moved": rho * state["moved"] + (1 - rho) * d * d}
