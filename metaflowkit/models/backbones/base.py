"""The contract of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """A module from an example to its features.

    The constructor may ask for ``shape``, the axes of an example, such as (C, H, W) of an image, for ``vocabulary``, the number of
    tokens where examples are texts, and for ``pretrained``, whether a file of weights is loaded into it afterwards.

    Attributes:
        features: their number D.
        reads: ``images``, ``tokens`` or another modality of data sets; ``any`` for all of them.
        network: the submodule that files of weights describe; empty for the backbone itself.
        classifier: patterns of names in files of weights that the backbone does without.
    """

    features: int
    reads: str = "any"
    network: str = ""
    classifier: Sequence[str] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, D] of examples [n, *shape]."""
