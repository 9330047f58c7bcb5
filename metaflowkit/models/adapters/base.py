"""The contract of an adapter."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Adapter(Protocol):
    """Small trainable parts for a backbone whose own weights stay as they are."""

    def __call__(self, backbone: nn.Module) -> None:
        """Put the parts into the backbone, and set ``requires_grad`` of its parameters to whether they are trained.

        Args:
            backbone: with its weights; it has to give the same number of features afterwards.

        Raises:
            ValueError: it has no place for them.
        """
