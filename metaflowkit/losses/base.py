"""The contract of a loss that the inner steps of a few-shot task descend."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metaflowkit.types import Outputs


class Loss(Protocol):
    """A loss of a model's outputs and the labels of a support set.

    The constructor may ask for ``criterion``, what outputs mean, and ``examples``, how many a support set has. A loss that is a module
    becomes a part of the model, and its parameters are meta-parameters (``loss.*``).

    Attributes:
        needs_pairs: each class must occur at least twice in a support set.
        needs_fixed_support: the support set must be the same at every step.
    """

    needs_pairs: bool = False
    needs_fixed_support: bool = False

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar.

        Args:
            outputs: of the support set, features [n, D] and logits [n, N].
            y: labels, int64 [n].
        """
