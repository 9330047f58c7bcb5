"""The way back from the adapted weights."""

from __future__ import annotations

from metaflowkit.config.registry import ORDERS
from metaflowkit.orders.base import Loop, Order, Result
from metaflowkit.types import Params


@ORDERS.register("reptile")
class Reptile(Order):
    """The way back from the adapted weights: the gradient is theta - w_K, whatever the objective says.

    Reference:
        A. Nichol, J. Achiam, J. Schulman, On First-Order Meta-Learning Algorithms, arXiv 1803.02999, algorithm 1.
    """

    second = False

    def gradient(self, loop: Loop, meta: Params) -> Result:
        """See :class:`metaflowkit.orders.base.Order`."""
        params, state = loop.adapted(meta)
        value, metrics = loop.objective(meta, params, state)
        return {name: p - params[name] for name, p in loop.trained(meta).items()}, value, metrics
