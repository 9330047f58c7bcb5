"""Through all inner steps."""

from __future__ import annotations

from metaflowkit.config.registry import ORDERS
from metaflowkit.orders.base import Unrolled


@ORDERS.register("exact")
class Exact(Unrolled):
    """Through all inner steps: the second derivatives of every step count.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017.
    """

    exact = True

    def differentiates(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; True."""
        return True
