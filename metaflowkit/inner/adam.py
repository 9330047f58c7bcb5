"""Adam as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.registry import RULES
from metaflowkit.schema import Fraction, NonNegative, Positive
from metaflowkit.values import Params, State


@RULES.register("adam")
class Adam:
    """Adam: m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; p <- p - lr m^ / (sqrt(v^) + eps), with bias-corrected m^, v^.

    Args:
        lr: step size.
        beta1: decay of the mean m.
        beta2: decay of the mean square v.
        eps: added to the root, as torch.optim.Adam does.
        weight_decay: added to the gradient (L2).

    Reference:
        D. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.
    """

    def __init__(self, lr: Positive = 0.001, beta1: Fraction = 0.9, beta2: Fraction = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.0) -> None:
        if beta1 == 1 or beta2 == 1:
            raise ValueError(f"beta1 and beta2 must lie below 1, got {beta1} and {beta2}; lower them")
        self.lr, self.beta1, self.beta2, self.eps, self.weight_decay = lr, beta1, beta2, eps, weight_decay

    def init(self, params: Params) -> State:
        """Zero means and no step taken."""
        return {"step": 0, "mean": {n: torch.zeros_like(p) for n, p in params.items()}, "square": {n: torch.zeros_like(p) for n, p in params.items()}}

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """One step; pure and differentiable in every argument, also where a gradient is exactly zero."""
        step = state["step"] + 1
        after: Params = {}
        means: Params = {}
        squares: Params = {}
        for name, p in params.items():
            g = grads[name] + self.weight_decay * p if self.weight_decay else grads[name]
            means[name] = self.beta1 * state["mean"][name] + (1 - self.beta1) * g
            squares[name] = self.beta2 * state["square"][name] + (1 - self.beta2) * g * g
            mean = means[name] / (1 - self.beta1**step)
            after[name] = p - self.lr * mean / (_root(squares[name] / (1 - self.beta2**step)) + self.eps)
        return after, {"step": step, "mean": means, "square": squares}


def _root(v: Tensor) -> Tensor:
    """The square root with derivative 0 instead of infinity at 0: a unit whose gradient is exactly zero stays put."""
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).sqrt(), 0.0)
