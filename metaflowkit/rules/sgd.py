"""Stochastic gradient descent as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Fraction, NonNegative, Positive
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed, used


@RULES.register("sgd")
class SGD(PerTensor):
    """Gradient descent: g <- g + wd p; b <- m b + (1-d) g (b <- g at first); p <- p - lr b (or p - lr (g + m b) with Nesterov's momentum).

    Args:
        lr: step size.
        momentum: m; 0 keeps no buffer.
        dampening: d, which part of the gradient the buffer leaves out.
        nesterov: look ahead along the buffer.
        weight_decay: wd, added to the gradient (L2).

    Raises:
        ValueError: Nesterov's momentum without momentum or with dampening, as in torch.optim.SGD.

    Reference:
        I. Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013; as in torch.optim.SGD.
    """

    def __init__(
        self, lr: Positive = 0.1, momentum: Fraction = 0.0, dampening: Fraction = 0.0, nesterov: bool = False, weight_decay: NonNegative = 0.0
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("nesterov needs momentum, got momentum 0; set momentum, such as 0.9, or leave nesterov out")
        if nesterov and dampening:
            raise ValueError(f"nesterov goes without dampening, got dampening {dampening}; set it to 0 or leave nesterov out")
        self.nesterov, self.buffered = nesterov, momentum != 0
        self.settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """The empty buffer b."""
        return {"buffer": torch.zeros_like(p)} if self.buffered else {}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, momentum: Value, dampening: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        if not self.buffered:
            return p - lr * g, {}
        fresh = (1 - dampening) * g if used(dampening) and count > 1 else g
        buffer = momentum * state["buffer"] + fresh
        return p - lr * (g + momentum * buffer if self.nesterov else buffer), {"buffer": buffer}
