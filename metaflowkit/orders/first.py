"""First-order."""

from __future__ import annotations

from dataclasses import dataclass

from metaflowkit.config.registry import ORDERS


@ORDERS.register("first")
@dataclass(frozen=True)
class First:
    """First-order: inner gradients are constants (FOMAML).

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.2.
    """

    unrolled = True
    needs_proximal = False

    def keeps(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; False."""
        return False
