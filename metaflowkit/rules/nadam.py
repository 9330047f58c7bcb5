"""NAdam as a pure rule."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import RULES
from metaflowkit.config.schema import Decay, NonNegative, Positive
from metaflowkit.rules.adam import check_betas, moments
from metaflowkit.rules.per_tensor import PerTensor, TensorState, Value, decayed, safe_sqrt


@RULES.register("nadam")
class NAdam(PerTensor):
    """Adam with Nesterov's momentum: p <- p - lr ((1-mu_t) g / (1-M_t) + mu_t+1 m / (1-M_t mu_t+1)) / (sqrt(v^) + eps).

    Here mu_t = b1 (1 - 0.96^(t d) / 2) and M_t = mu_1 ... mu_t.

    Args:
        lr: step size.
        beta1: decay of the mean m.
        beta2: decay of the mean square v.
        eps: added to the root.
        momentum_decay: d, how fast the momentum mu_t rises to b1.
        weight_decay: added to the gradient (L2).

    Raises:
        ValueError: a decay of 1.

    Reference:
        T. Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016; as in torch.optim.NAdam.
    """

    def __init__(
        self,
        lr: Positive = 0.002,
        beta1: Decay = 0.9,
        beta2: Decay = 0.999,
        eps: Positive = 1e-8,
        momentum_decay: NonNegative = 0.004,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        check_betas(beta1, beta2)
        self.settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "momentum_decay": momentum_decay, "weight_decay": weight_decay}

    def start(self, p: Tensor) -> TensorState:
        """Zero means, and the empty product M_0 = 1."""
        return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p), "product": torch.ones_like(p)}

    def step(
        self,
        p: Tensor,
        g: Tensor,
        state: TensorState,
        count: int,
        lr: Value,
        beta1: Value,
        beta2: Value,
        eps: Value,
        momentum_decay: Value,
        weight_decay: Value,
    ) -> tuple[Tensor, TensorState]:
        """One step of the formula above."""
        g = decayed(p, g, weight_decay)
        after = moments(g, state, beta1, beta2)
        now, following = (beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (count, count + 1))
        product = after["product"] = state["product"] * now
        direction = (1 - now) * g / (1 - product) + following * after["mean"] / (1 - product * following)
        return p - lr * direction / (safe_sqrt(after["square"] / (1 - beta2**count)) + eps), after
