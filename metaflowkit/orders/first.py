"""First-order."""

from __future__ import annotations

from metaflowkit.config.registry import ORDERS
from metaflowkit.orders.base import Unrolled


@ORDERS.register("first")
class First(Unrolled):
    """First-order: inner gradients are constants (FOMAML).

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.2.
    """

    second = False

    def differentiates(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; False."""
        return False
