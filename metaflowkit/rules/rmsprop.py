"""RMSprop as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, Fraction, NonNegative, Positive
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed, safe_sqrt


@RULES.register("rmsprop")
class RMSprop(PerTensor):
    """RMSprop: v <- a v + (1-a) g^2; p <- p - lr g / (sqrt(v) + eps); centered takes v - m^2 under the root, with m <- a m + (1-a) g.

    Args:
        lr: step size.
        alpha: a, decay of the mean square v.
        eps: added to the root.
        momentum: of a buffer of the scaled gradients; 0 keeps none.
        centered: divide by the standard deviation instead of the mean square's root.
        weight_decay: added to the gradient (L2).

    Reference:
        G. Hinton, Neural Networks for Machine Learning, lecture 6e, 2012; A. Graves, arXiv 1308.0850, equations 38 to 41; as in torch.optim.RMSprop.
    """

    def __init__(
        self,
        lr: Positive = 0.01,
        alpha: Decay = 0.99,
        eps: Positive = 1e-8,
        momentum: Fraction = 0.0,
        centered: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        self.centered, self.buffered = centered, momentum != 0
        self.settings = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero means, an empty buffer."""
        names = ["square", *(["mean"] if self.centered else []), *(["buffer"] if self.buffered else [])]
        return {name: torch.zeros_like(p) for name in names}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, alpha: Value, eps: Value, momentum: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        after = {"square": alpha * state["square"] + (1 - alpha) * g * g}
        variance = after["square"]
        if self.centered:
            after["mean"] = alpha * state["mean"] + (1 - alpha) * g
            variance = variance - after["mean"] * after["mean"]
        scaled = g / (safe_sqrt(variance) + eps)
        if self.buffered:
            scaled = after["buffer"] = momentum * state["buffer"] + scaled
        return p - lr * scaled, after
