"""The contract of a backbone."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """A module from an image to its features. The constructor may ask for ``shape``, the (C, H, W) of the images.

    Attributes:
        features: their number D.
    """

    features: int

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, D] of images [n, C, H, W]."""
