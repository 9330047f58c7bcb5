"""What a run measures, and how it is shown."""

from __future__ import annotations

import math
from typing import NamedTuple


class Metric(NamedTuple):
    """What is measured.

    Attributes:
        name: one word, by which metric log and search know it.
        higher_is_better: whether more of it is better.
        percent: whether it is a share in 0..1, shown in per cent.
    """

    name: str = "accuracy"
    higher_is_better: bool = True
    percent: bool = True

    def text(self, value: float, sign: str = "") -> str:
        """A value without its unit: per cent to a tenth, others to three digits."""
        return f"{100 * value:{sign}.1f}" if self.percent else f"{value:{sign}.{_places(value)}f}"

    def with_ci(self, value: float, ci95: float, sign: str = "") -> str:
        """A value, ± the half width of its interval to as many places."""
        half = f"{100 * ci95:.1f}" if self.percent else f"{ci95:.{_places(value)}f}"
        return f"{self.text(value, sign)} ± {half}"

    @property
    def unit(self) -> str:
        """The text after a value."""
        return " %" if self.percent else ""

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another."""
        return value > than if self.higher_is_better else value < than


def _places(value: float) -> int:
    """Decimal places with which a number has three digits."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if 1e-6 < abs(value) < math.inf else 2
