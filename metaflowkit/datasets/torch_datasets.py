"""Torch's data sets of (image, label) as the splits of a pipeline."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from metaflowkit.errors import DataError, quoted
from metaflowkit.types import ImageSet

CHANNELS = 4  # of an array at most, by which the axis of channels is told from that of rows


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
        train: what is learned from; items are images, or tuples that begin with an image and its label, a whole number. An image is
            a tensor [C, H, W], a PIL image, or a numpy array [H, W] or [H, W, C], uint8 or float in 0..1; an array whose channels may
            come first, such as [3, 32, 32], is refused. Without labels it can be learned from, not measured on.
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
        item, where = dataset[i], f"dataset, split {split!r}, item {i}"
        image, *rest = item if isinstance(item, tuple | list) and item else (item,)
        images.append(_tensor(image, where))
        labels += [_label(label, where) for label in rest[:1]]
    if len({image.shape for image in images}) > 1:
        raise DataError(f"dataset, split {split!r}: its images have several shapes, such as {_shapes(images)}; resize them in its transform")
    if labels and len(labels) < len(images):
        raise DataError(f"dataset, split {split!r}: {len(labels)} of {len(images)} items have a label; give all of them one, or none")
    x = torch.stack(images) if images else torch.zeros(0, 1, 1, 1)
    names = getattr(dataset, "classes", None)
    distinct = sorted(set(labels))
    if names is not None and (unnamed := [label for label in distinct if label not in (names if isinstance(names, Mapping) else range(len(names)))]):
        raise DataError(f"dataset, split {split!r}: its attribute classes names {len(names)}, got the label {unnamed[0]}; number the classes from 0")
    index = {label: i for i, label in enumerate(distinct)}
    y = torch.tensor([index[label] for label in labels], dtype=torch.int64)
    return ImageSet(x, y, tuple(str(names[label]) if names is not None else str(label) for label in distinct))


def _tensor(item: Any, where: str) -> Tensor:
    """An image as a tensor [C, H, W]; see :func:`image_sets` for the axes of what it may be."""
    if isinstance(item, Tensor):
        if item.dim() != 3:
            raise DataError(f"{where}: must be an image [C, H, W], got shape {list(item.shape)}; change its transform")
        return item
    try:
        image = torch.from_numpy(np.array(item))
    except (TypeError, ValueError):
        raise DataError(f"{where}: must be an image, a tensor, a PIL image or an array of numbers, got {type(item).__name__}; change its transform") from None
    if image.dim() == 2:
        return image[None]
    maybe_channels_first = isinstance(item, np.ndarray) and image.dim() == 3 and image.shape[0] <= CHANNELS
    if image.dim() != 3 or image.shape[2] > CHANNELS or maybe_channels_first:
        raise DataError(
            f"{where}: an array must be an image [H, W], or [H, W, C] with at most {CHANNELS} channels and more rows, got shape {list(image.shape)}; "
            "give a tensor [C, H, W], such as torch.from_numpy(array), where channels come first"
        )
    return image.movedim(-1, 0)


def _label(label: Any, where: str) -> int:
    try:
        return operator.index(label)
    except TypeError:
        raise DataError(f"{where}: its label must be a whole number, got {quoted(label)}; number the classes, and name them in its attribute classes") from None


def _shapes(images: list[Tensor]) -> str:
    return " and ".join(sorted({"x".join(map(str, image.shape)) for image in images})[:2])
