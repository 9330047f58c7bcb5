"""Adam with decoupled weight decay as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, NonNegative, Positive
from metaflowkit.rules.adam import check_betas, direction, moments
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value


@RULES.register("adamw")
class AdamW(PerTensor):
    """Adam with decoupled weight decay: p <- (1 - lr wd) p, then Adam's step p <- p - lr m^ / (sqrt(v^) + eps).

    Args:
        lr: step size.
        beta1: decay of the mean m.
        beta2: decay of the mean square v.
        eps: added to the root.
        weight_decay: wd, shrinks the parameter itself.

    Raises:
        ValueError: a decay of 1.

    Reference:
        I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2; as in torch.optim.AdamW.
    """

    def __init__(self, lr: Positive = 0.001, beta1: Decay = 0.9, beta2: Decay = 0.999, eps: Positive = 1e-8, weight_decay: NonNegative = 0.01) -> None:
        check_betas(beta1, beta2)
        self.settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero means."""
        return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}

    def step(
        self, p: Tensor, g: Tensor, state: TensorState, count: int, lr: Value, beta1: Value, beta2: Value, eps: Value, weight_decay: Value
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        state = moments(g, state, beta1, beta2)
        return (1 - lr * weight_decay) * p - lr * direction(state, count, beta1, beta2, eps), state
