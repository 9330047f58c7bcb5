"""The contract of a data set: the check of the splits that any data set, also a plugin's, returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from metaflowkit.errors import DataError
from metaflowkit.types import ExampleSet


def check_splits(name: str, splits: Any, unread: Collection[str] = ()) -> dict[str, ExampleSet]:
    """The splits as a dictionary, once they are known to meet the contract of a data set.

    Each is an :class:`ExampleSet`: examples [n, *shape], and for each the index of its class, int64; in an :class:`ImageSet` images [n, C, H, W], uint8
    in 0..255 or float in 0..1, in a :class:`TokenSet` tokens [n, L], int64. Examples without classes have neither class names nor labels. Those of all
    splits have one shape.

    Args:
        name: of the data set, for messages.
        splits: what its ``load`` returned.
        unread: splits whose labels nobody may read, not even to check them.

    Raises:
        DataError: naming the data set, the split and what is wrong.
    """
    if not isinstance(splits, Mapping):
        raise DataError(
            f"dataset {name!r}: load must return a mapping of splits, got {type(splits).__name__}; return such as {{'train': ImageSet(x, y, classes)}}"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for split, images in splits.items():
        where = f"dataset {name!r}, split {split!r}"
        if not (isinstance(getattr(images, "x", None), Tensor) and hasattr(images, "y") and hasattr(images, "classes")):
            raise DataError(f"{where}: must be an ImageSet, got {type(images).__name__}; return ImageSet(x, y, classes)")
        if not len(images.x):
            continue
        CHECKS.get(getattr(images, "modality", "images"), _check_vectors)(where, images)
        if split not in unread:
            _check_labels(where, images)
        shapes[split] = tuple(images.x.shape[1:])
    if len(set(shapes.values())) > 1:
        raise DataError(f"dataset {name!r}: images of all splits must have one shape, got {shapes}; resize them")
    return dict(splits)


def _check_images(where: str, images: ExampleSet) -> None:
    x = images.x
    if x.dim() != 4:
        raise DataError(f"{where}: images must be a tensor [n, C, H, W], got shape {list(x.shape)}; add or remove axes")
    if x.dtype == torch.uint8:
        return
    if not x.is_floating_point():
        raise DataError(f"{where}: images must be uint8 in 0..255 or float in 0..1, got {str(x.dtype).removeprefix('torch.')}; convert them")
    low, high = (bound.item() for bound in x.aminmax())
    if not (low >= 0 and high <= 1):  # neither holds for NaN
        raise DataError(f"{where}: float images must lie in 0..1, got {low:g} to {high:g}; scale them, or give uint8")


def _check_tokens(where: str, texts: ExampleSet) -> None:
    x, vocabulary = texts.x, int(getattr(texts, "vocabulary", 0))
    if x.dtype != torch.int64 or x.dim() != 2:
        raise DataError(f"{where}: texts must be tokens [n, L], int64, got {str(x.dtype).removeprefix('torch.')} of shape {list(x.shape)}; convert them")
    low, high = (int(bound) for bound in x.aminmax())
    if low < 0 or high >= vocabulary:
        raise DataError(f"{where}: tokens must lie in 0 to {vocabulary - 1} (vocabulary - 1), got {low} to {high}; raise the vocabulary")


def _check_vectors(where: str, examples: ExampleSet) -> None:
    if examples.x.dim() < 2:
        raise DataError(f"{where}: examples must be a tensor [n, *shape], got shape {list(examples.x.shape)}; add an axis")


CHECKS = {"images": _check_images, "tokens": _check_tokens}


def _check_labels(where: str, images: ExampleSet) -> None:
    count, y = len(images.classes), images.y
    if not isinstance(y, Tensor):
        raise DataError(f"{where}: labels must be a tensor, got {type(y).__name__}; give the index of each image's class, int64")
    if not count and not len(y):
        return
    if y.dtype != torch.int64 or y.shape != (len(images.x),):
        raise DataError(
            f"{where}: labels must be int64, one for each of {len(images.x)} images, got {str(y.dtype).removeprefix('torch.')} of shape {list(y.shape)}; "
            "give the index of each image's class, or neither labels nor classes"
        )
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or high >= count:
        raise DataError(f"{where}: labels must be indices of its {count} classes, got {low} to {high}; number the classes of each split from 0")
