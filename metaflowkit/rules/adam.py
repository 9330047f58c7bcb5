"""Adam as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, NonNegative, Positive
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed, safe_sqrt


@RULES.register("adam")
class Adam(PerTensor):
    """Adam: m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; p <- p - lr m^ / (sqrt(v^) + eps), with bias-corrected m^, v^.

    Args:
        lr: step size.
        beta1: decay of the mean m.
        beta2: decay of the mean square v.
        eps: added to the root, as torch.optim.Adam does.
        weight_decay: added to the gradient (L2).

    Raises:
        ValueError: a decay of 1.

    Reference:
        D. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.
    """

    def __init__(self, lr: Positive = 0.001, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.0) -> None:
        check_betas(beta1, beta2)
        self.settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero means."""
        return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, beta1: Value, beta2: Value, eps: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        state = moments(decayed(p, g, weight_decay), state, beta1, beta2)
        return p - lr * direction(state, count, beta1, beta2, eps), state


def check_betas(beta1: float, beta2: float) -> None:
    """Refuse decays of 1, with which gradients would have no effect."""
    if beta1 == 1 or beta2 == 1:
        raise ValueError(f"beta1 and beta2 must lie below 1, got {beta1} and {beta2}; lower them")


def moments(g: Tensor, state: TensorState, beta1: Value, beta2: Value) -> TensorState:
    """The decayed means of the gradient and of its square."""
    return {"mean": beta1 * state["mean"] + (1 - beta1) * g, "square": beta2 * state["square"] + (1 - beta2) * g * g}


def direction(state: TensorState, count: int, beta1: Value, beta2: Value, eps: Value) -> Tensor:
    """Adam's direction: m^ / (sqrt(v^) + eps)."""
    return (state["mean"] / (1 - beta1**count)) / (safe_sqrt(state["square"] / (1 - beta2**count)) + eps)
