"""Digits against scikit-learn's own arrays."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from metaflowkit.datasets.digits import Digits


def test_originals_at_their_own_size() -> None:
    (split,) = [images for images in Digits(image_size=8).load().values() if len(images.x)]
    bunch = load_digits()
    order = torch.argsort(torch.from_numpy(bunch.target), stable=True)
    expected = (torch.from_numpy(bunch.images)[order] * (255 / 16)).float().round().to(torch.uint8)
    assert torch.equal(split.x[:, 0], expected)
    assert split.x.shape == (1797, 1, 8, 8)
    assert split.classes == tuple("0123456789")


def test_enlarged_and_split_by_class() -> None:
    splits = Digits(image_size=20, fractions={"train": 0.5, "test": 0.5}).load()
    assert splits["train"].x.shape[1:] == (1, 20, 20)
    assert len(splits["train"].classes) == len(splits["test"].classes) == 5
    assert not set(splits["train"].classes) & set(splits["test"].classes)
