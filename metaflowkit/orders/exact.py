"""Through all inner steps."""

from __future__ import annotations

from dataclasses import dataclass

from metaflowkit.config.registry import ORDERS


@ORDERS.register("exact")
@dataclass(frozen=True)
class Exact:
    """Through all inner steps: the second derivatives of every step count.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017.
    """

    unrolled = True
    needs_proximal = False

    def keeps(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; True."""
        return True
