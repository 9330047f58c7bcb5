"""The contract of a backbone."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """A module from an example to its features.

    The constructor may ask for ``shape``, the axes of an example, such as (C, H, W) of an image, and for ``vocabulary``, the number of
    tokens where examples are texts.

    Attributes:
        features: their number D.
        reads: ``images``, ``tokens`` or another modality of data sets; ``any`` for all of them.
    """

    features: int
    reads: str = "any"

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, D] of examples [n, *shape]."""
