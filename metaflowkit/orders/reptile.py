"""The difference of initial and adapted weights."""

from __future__ import annotations

from metaflowkit.config.registry import ORDERS
from metaflowkit.orders.base import Loop, Order, Result
from metaflowkit.trees import Params


@ORDERS.register("reptile")
class Reptile(Order):
    """The difference of initial and adapted weights: the gradient is theta - w_K, whatever the objective is.

    Reference:
        A. Nichol, J. Achiam, J. Schulman, On First-Order Meta-Learning Algorithms, arXiv 1803.02999, algorithm 1.
    """

    second = False

    def gradient(self, loop: Loop, meta: Params) -> Result:
        """Initial minus adapted parameters, in place of a derivative."""
        params, state = loop.adapted(meta)
        value, metrics = loop.objective(meta, params, state)
        return {name: p - params[name] for name, p in loop.trained(meta).items()}, value, metrics
