"""Schedules: the factor of the outer learning rate at each outer step."""

from __future__ import annotations

import math

from metaflowkit.config.registry import SCHEDULES
from metaflowkit.config.schema import Fraction


@SCHEDULES.register("constant")
class Constant:
    """1 at every step."""

    def __call__(self, step: int) -> float:
        """1."""
        return 1.0


@SCHEDULES.register("cosine")
class Cosine:
    """From 1 to nearly 0 along half a cosine: (1 + cos(pi (step - 1) / steps)) / 2; before it, a straight rise over a share of the steps.

    Args:
        steps: of the whole run.
        warmup: share of the steps that rise from 0 to 1 before the cosine begins.

    Reference:
        I. Loshchilov, F. Hutter, SGDR, ICLR 2017, equation 5, without restarts.

    Example:
        >>> [round(Cosine(4)(step), 3) for step in (1, 3)]
        [1.0, 0.5]
    """

    def __init__(self, steps: int, warmup: Fraction = 0.0) -> None:
        self.rise = round(warmup * steps)
        self.steps = steps - self.rise

    def __call__(self, step: int) -> float:
        """The factor at an outer step, from 1."""
        if step <= self.rise:
            return step / (self.rise + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - self.rise - 1) / self.steps))
