"""Exact through the last steps alone."""

from __future__ import annotations

from metaflowkit.config.registry import ORDERS
from metaflowkit.config.schema import Count
from metaflowkit.orders.base import Unrolled


@ORDERS.register("truncate")
class Truncate(Unrolled):
    """Exact through the last steps, first-order through those before them.

    Args:
        last: how many steps are exact; inner.steps of them are the order ``exact``, none the order ``first``.

    Reference:
        A. Shaban et al., Truncated Back-propagation for Bilevel Optimization, AISTATS 2019. Differs from the paper: gradients of
        earlier steps are constants instead of cutting the graph, since the initialisation is before all of them.
    """

    steps_in = "last"

    def __init__(self, last: Count = 1) -> None:
        self.last = last

    def differentiates(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated."""
        return step >= steps - self.last
