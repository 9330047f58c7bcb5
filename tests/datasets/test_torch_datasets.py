"""Data sets of torch as splits: the axes of every form of image, and items that are none."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import metaflowkit as mfk
from metaflowkit.errors import DataError


class Items(Dataset):
    def __init__(self, *items, classes=None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int):
        return self.items[i]


def loaded(*items, classes=None):
    return mfk.image_sets(Items(*items, classes=classes)).load()["train"]


RGB = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.mark.parametrize(
    ("item", "image"),
    [
        (torch.from_numpy(RGB).movedim(2, 0), RGB.transpose(2, 0, 1)),
        (Image.fromarray(RGB), RGB.transpose(2, 0, 1)),
        (Image.fromarray(RGB[:3]), RGB[:3].transpose(2, 0, 1)),  # a PIL image has its channels last, however few its rows are
        (Image.fromarray(RGB[..., 0]), RGB[None, ..., 0]),
        (RGB, RGB.transpose(2, 0, 1)),
        (RGB[..., :1], RGB[None, ..., 0]),
        (RGB[..., 0], RGB[None, ..., 0]),
    ],
)
def test_the_channels_of_an_image_come_first(item, image) -> None:
    assert torch.equal(loaded(item).x, torch.from_numpy(image.copy())[None])


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 32, 32), (3, 32, 3), (12, 12, 5), (2, 3, 12, 12), (7,)], ids=str)
def test_an_array_whose_axes_are_ambiguous_is_refused(shape) -> None:
    says = (
        "dataset, split 'train', item 0: an array must be an image [H, W], or [H, W, C] with at most 4 channels and more rows, "
        f"got shape {list(shape)}; give a tensor [C, H, W]"
    )
    with pytest.raises(DataError, match=re.escape(says)):
        loaded(np.zeros(shape, dtype=np.uint8))


IMAGE = torch.zeros(1, 4, 4)


@pytest.mark.parametrize(
    ("items", "classes", "says"),
    [
        (["a cat"], None, "item 0: must be an image, a tensor, a PIL image or an array of numbers, got str; change its transform"),
        ([{"image": IMAGE}], None, "item 0: must be an image, a tensor, a PIL image or an array of numbers, got dict; change its transform"),
        ([()], None, "item 0: an array must be an image"),
        ([(IMAGE, 0), (IMAGE, "cat")], None, "item 1: its label must be a whole number, got 'cat'; number the classes, and name them in its attribute classes"),
        ([(IMAGE, 0.5)], None, "item 0: its label must be a whole number, got 0.5; number"),
        ([(IMAGE, None)], None, "item 0: its label must be a whole number, got None; number"),
        ([(IMAGE, 0), (IMAGE, 2)], ["a", "b"], "split 'train': its attribute classes names 2, got the label 2; number the classes from 0"),
        ([(IMAGE, -1)], ["a", "b"], "split 'train': its attribute classes names 2, got the label -1; number the classes from 0"),
    ],
)
def test_items_that_are_no_labelled_images_are_named(items, classes, says) -> None:
    with pytest.raises(DataError, match=re.escape(says)):
        loaded(*items, classes=classes)


def test_labels_are_whole_numbers_of_any_type_and_named_by_the_classes() -> None:
    labels = (2, np.int64(0), torch.tensor(2), True)
    assert loaded(*((IMAGE, label) for label in labels), classes=["a", "b", "c"]).classes == ("a", "b", "c")
    assert loaded(*((IMAGE, label) for label in labels)).y.tolist() == [2, 0, 2, 1]
