"""What a data set must give: every violation is refused with the names of data set and split; what keeps the contract passes unchanged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from metaflowkit.datasets.contract import check_splits
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet

X = torch.arange(6 * 3 * 4 * 4).remainder(256).to(torch.uint8).reshape(6, 3, 4, 4)
Y = torch.tensor([0, 0, 1, 1, 2, 2])
NAMES = ("a", "b", "c")
NONE = torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize("x", [X, X / 255, X.double() / 255, (X / 255).half()], ids=lambda x: str(x.dtype))
def test_what_keeps_the_contract_passes_unchanged(x) -> None:
    splits = {"train": ImageSet(x, NONE, ()), "val": ImageSet(x[:0], NONE, ()), "test": ImageSet(x, Y, NAMES)}
    checked = check_splits("mine", splits)
    assert list(checked) == ["train", "val", "test"]
    assert all(checked[name] is splits[name] for name in splits)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (ImageSet(X.long(), Y, NAMES), "images must be uint8 in 0..255 or float in 0..1, got int64; convert them"),
        (ImageSet(X.float(), Y, NAMES), "float images must lie in 0..1, got 0 to 255; scale them, or give uint8"),
        (ImageSet(X / 255 - 0.1, Y, NAMES), "float images must lie in 0..1, got -0.1 to 0.9; scale them, or give uint8"),
        (ImageSet(torch.full((6, 3, 4, 4), float("nan")), Y, NAMES), "float images must lie in 0..1, got nan to nan; scale them, or give uint8"),
        (ImageSet(X[:, 0], Y, NAMES), "images must be a tensor [n, C, H, W], got shape [6, 4, 4]; add or remove axes"),
        (ImageSet(X, Y, NAMES[:2]), "labels must be indices of its 2 classes, got 0 to 2; number the classes of each split from 0"),
        (ImageSet(X, Y - 1, NAMES), "labels must be indices of its 3 classes, got -1 to 1; number the classes of each split from 0"),
        (ImageSet(X, Y, ()), "labels must be indices of its 0 classes, got 0 to 2; number the classes of each split from 0"),
        (
            ImageSet(X, NONE, NAMES),
            "labels must be int64, one for each of 6 images, got int64 of shape [0]; give the index of each image's class, or neither labels nor classes",
        ),
        (
            ImageSet(X, Y.float(), NAMES),
            "labels must be int64, one for each of 6 images, got float32 of shape [6]; give the index of each image's class, or neither labels nor classes",
        ),
        (ImageSet(X, [0, 0, 1, 1, 2, 2], NAMES), "labels must be a tensor, got list; give the index of each image's class, int64"),
        ((X, Y), "must be an ImageSet, got tuple; return ImageSet(x, y, classes)"),
        (SimpleNamespace(x=X.numpy(), y=Y, classes=NAMES), "must be an ImageSet, got SimpleNamespace; return ImageSet(x, y, classes)"),
    ],
)
def test_a_violation_is_named(images, says) -> None:
    with pytest.raises(DataError) as caught:
        check_splits("mine", {"train": ImageSet(X, Y, NAMES), "test": images})
    assert str(caught.value) == f"dataset 'mine', split 'test': {says}"


def test_splits_of_several_shapes_or_none_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        check_splits("mine", {"train": ImageSet(X, Y, NAMES), "test": ImageSet(X[:, :1], Y, NAMES)})
    assert str(caught.value) == "dataset 'mine': images of all splits must have one shape, got {'train': (3, 4, 4), 'test': (1, 4, 4)}; resize them"
    with pytest.raises(DataError, match=r"^dataset 'mine': load must return a mapping of splits, got list; return such as"):
        check_splits("mine", [])


def test_labels_that_nobody_may_read_are_not_read() -> None:
    splits = {"train": ImageSet(X, Y + 7, NAMES), "test": ImageSet(X, Y, NAMES)}
    assert check_splits("mine", splits, unread=("train",)) == splits
    with pytest.raises(DataError, match="split 'train': labels must be indices"):
        check_splits("mine", splits)
