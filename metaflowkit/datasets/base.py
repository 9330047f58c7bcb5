"""The contract of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from metaflowkit.types import ExampleSet


class DataSet(Protocol):
    """Where examples come from.

    Attributes:
        modality: ``images``, ``tokens`` or another one of its example sets, with which backbones and augmentations are compared
            before anything is loaded; ``any`` where it is unknown before that.
    """

    modality: str = "any"

    def load(self) -> Mapping[str, ExampleSet]:
        """The splits ``train``, ``val`` and ``test``, or some of them; see :func:`metaflowkit.datasets.contract.check_splits`."""
