"""Stochastic gradient descent as a pure rule."""

from __future__ import annotations

import torch

from metaflowkit.registry import RULES
from metaflowkit.schema import Fraction, NonNegative, Positive
from metaflowkit.values import Params, State


@RULES.register("sgd")
class SGD:
    """Gradient descent: g <- g + wd p; b <- m b + g; p <- p - lr b (or p - lr (g + m b) with Nesterov's momentum).

    Args:
        lr: step size.
        momentum: m; 0 keeps no buffer.
        nesterov: look ahead along the buffer.
        weight_decay: wd, added to the gradient (L2).

    Reference:
        I. Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013; as in torch.optim.SGD.
    """

    def __init__(self, lr: Positive = 0.1, momentum: Fraction = 0.0, nesterov: bool = False, weight_decay: NonNegative = 0.0) -> None:
        if nesterov and not momentum:
            raise ValueError("nesterov needs momentum, got momentum 0; set momentum, such as 0.9, or leave nesterov out")
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay

    def init(self, params: Params) -> State:
        """The empty buffer b."""
        return {"buffer": {name: torch.zeros_like(p) for name, p in params.items()}} if self.momentum else {}

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """One step; pure and differentiable in every argument."""
        after: Params = {}
        buffers: Params = {}
        for name, p in params.items():
            g = grads[name]
            if self.weight_decay:
                g = g + self.weight_decay * p
            if self.momentum:
                buffers[name] = self.momentum * state["buffer"][name] + g
                g = g + self.momentum * buffers[name] if self.nesterov else buffers[name]
            after[name] = p - self.lr * g
        return after, {"buffer": buffers} if self.momentum else {}
