"""The way back from the adapted weights."""

from __future__ import annotations

from dataclasses import dataclass

from metaflowkit.config.registry import ORDERS


@ORDERS.register("reptile")
@dataclass(frozen=True)
class Reptile:
    """The way back from the adapted weights: the gradient is theta - w_K, whatever the objective says.

    Reference:
        A. Nichol, J. Achiam, J. Schulman, On First-Order Meta-Learning Algorithms, arXiv 1803.02999, algorithm 1.
    """

    unrolled = False
    needs_proximal = False
