"""Torch's data sets of (image, label) as the splits of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet


class TorchSplits:
    """The splits of a data set, each from a map-style ``torch.utils.data.Dataset``; see :func:`image_sets`.

    Args:
        splits: the data sets by split.
    """

    def __init__(self, splits: Mapping[str, Dataset[Any]]) -> None:
        self.splits = dict(splits)

    def load(self) -> dict[str, ImageSet]:
        """The splits in memory."""
        return {name: _image_set(name, dataset) for name, dataset in self.splits.items()}


def image_sets(train: Dataset[Any], val: Dataset[Any] | None = None, test: Dataset[Any] | None = None) -> TorchSplits:
    """A pipeline's data set from torch's: ``metaflowkit.pipeline({"dataset": image_sets(train, val, test), ...})``.

    Args:
        train: what is learned from; items are images, or tuples that begin with an image and its label. An image is a tensor
            [C, H, W], uint8 or float in 0..1, or a PIL image. Without labels it can be learned from, not measured on.
        val: classes that validate, none of which training has.
        test: classes that are measured at the end.

    Returns:
        A data set; classes are named by the data set's ``classes`` where it has them, else by their labels.
    """
    splits = {"train": train, "val": val, "test": test}
    return TorchSplits({name: dataset for name, dataset in splits.items() if dataset is not None})


def _image_set(split: str, dataset: Dataset[Any]) -> ImageSet:
    images, labels = [], []
    for i in range(len(dataset)):  # type: ignore[arg-type]
        item = dataset[i]
        image, *rest = item if isinstance(item, tuple | list) else (item,)
        images.append(_tensor(image, split, i))
        labels += [int(label) for label in rest[:1]]
    if len({image.shape for image in images}) > 1:
        raise DataError(f"dataset, split {split!r}: its images have several shapes, such as {_shapes(images)}; resize them in its transform")
    if labels and len(labels) < len(images):
        raise DataError(f"dataset, split {split!r}: {len(labels)} of {len(images)} items have a label; give all of them one, or none")
    x = torch.stack(images) if images else torch.zeros(0, 1, 1, 1)
    names = getattr(dataset, "classes", None)
    present = sorted(set(labels))
    index = {label: i for i, label in enumerate(present)}
    y = torch.tensor([index[label] for label in labels], dtype=torch.int64)
    return ImageSet(x, y, tuple(str(names[label]) if names is not None else str(label) for label in present))


def _tensor(item: Any, split: str, i: int) -> Tensor:
    image: Tensor = item if isinstance(item, Tensor) else torch.from_numpy(np.array(item))
    if not isinstance(item, Tensor):
        image = image[None] if image.dim() == 2 else image.movedim(-1, 0)
    if image.dim() != 3:
        raise DataError(f"dataset, split {split!r}, item {i}: must be an image [C, H, W], got shape {list(image.shape)}; change its transform")
    return image


def _shapes(images: list[Tensor]) -> str:
    return " and ".join(sorted({"x".join(map(str, image.shape)) for image in images})[:2])
