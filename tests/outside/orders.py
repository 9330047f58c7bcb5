"""Orders as a stranger writes them, a plugin module."""

from __future__ import annotations

import torch

from metaflowkit.config.registry import ORDERS
from metaflowkit.orders import Implicit, Order


@ORDERS.register("outside_signs")
class Signs(Order):
    """The signs of the way back from the adapted weights.

    Args:
        size: of every entry of the gradient.
    """

    def __init__(self, size: float = 1.0) -> None:
        self.size = size

    def gradient(self, loop, meta):
        params, state = loop.adapted(meta)
        value, metrics = loop.objective(meta, params, state)
        return (
            {name: self.size * torch.sign(p - params[name]) for name, p in loop.trained(meta).items()},
            value,
            {**metrics, "size": value.new_tensor(self.size)},
        )


@ORDERS.register("outside_implicit")
class FewIterations(Implicit):
    """The implicit order with two iterations."""

    def __init__(self) -> None:
        super().__init__(iterations=2)


@ORDERS.register("outside_nothing")
class Nothing(Order):
    """Forgets to define what it does."""
