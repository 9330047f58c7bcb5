"""The contract of a sampler of training tasks."""

from __future__ import annotations

from typing import Protocol

from metaflowkit.types import Episode


class Tasks(Protocol):
    """Tasks to learn from.

    The constructor may ask for ``images``, the training images [n, C, H, W] or, where it reads labels, the whole
    :class:`~metaflowkit.types.ImageSet`, and for the run's ``seed``.

    Attributes:
        reads_labels: whether it may see the labels of the training images.
    """

    reads_labels: bool = True

    def episode(self, step: int) -> Episode:
        """The tasks of an outer step, before augmentation; the same for the same seed and step.

        Args:
            step: of the outer loop, from 1; calibration asks for steps below it.
        """
