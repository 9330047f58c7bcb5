"""The contract of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from metaflowkit.types import ExampleSet


class DataSet(Protocol):
    """Where examples come from.

    Attributes:
        modality: ``images``, ``tokens`` or whatever else its example sets say, by which backbones and augmentations are held against it
            before anything is loaded; ``any`` where that is not known yet.
    """

    modality: str = "any"

    def load(self) -> Mapping[str, ExampleSet]:
        """The splits ``train``, ``val`` and ``test``, as far as there are; see :func:`metaflowkit.datasets.contract.check_splits`."""
