"""The contract of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from metaflowkit.types import ImageSet


class DataSet(Protocol):
    """Where images come from."""

    def load(self) -> Mapping[str, ImageSet]:
        """The splits ``train``, ``val`` and ``test``, as far as there are; see :func:`metaflowkit.datasets.contract.check_splits`."""
