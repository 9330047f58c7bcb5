"""The contract of a head."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metaflowkit.types import Labelled


class Head(Protocol):
    """A module from features to the scores of classes. The constructor may ask for ``features`` (D) and ``way`` (N of training tasks).

    Attributes:
        reads_support: whether it needs the embedded support set; without, its ``support`` holds inputs.
        fixed_way: it has a row per class, hence is adapted with as many classes as in training.
        metric: by which nearest-prototype accuracy is measured, ``cosine`` or ``euclidean``.
    """

    reads_support: bool = True
    fixed_way: bool = False
    metric: str = "cosine"

    def forward(self, features: Tensor, support: Labelled | None, way: int) -> Tensor:
        """Scores [n, N].

        Args:
            features: [n, D].
            support: embedded support examples [m, D] with labels [m]; None where the tasks are not few-shot classification.
            way: number of classes N.
        """
