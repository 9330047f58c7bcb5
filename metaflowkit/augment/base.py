"""The contracts of augmentations."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Augmentation(Protocol):
    """An operation on examples before a step, outside the graph. Kornia's keep their names.

    Its draws from torch's generators depend on the run's seed, the step and its position in the list alone.

    Attributes:
        modality: of the examples that it changes: ``images``, ``tokens`` or that of another data set; ``any`` for all of them.
    """

    modality: str = "images"

    def __call__(self, x: Tensor) -> Tensor:
        """Other examples of the same shape and type.

        Args:
            x: examples [n, *shape]; images are float in 0..1.
        """


class LearnedAugmentation(Protocol):
    """A module inside the graph of the inner steps, whose parameters are meta-parameters (``augment.*``).

    The constructor may ask for ``shape``, the axes of an example. One that draws random numbers sets ``draws_random = True``.
    """

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Examples and labels on which the inner loss is computed, in any number.

        Args:
            x: the support's examples [n, *shape].
            y: their labels [n].
        """
