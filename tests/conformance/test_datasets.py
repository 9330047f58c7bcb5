"""Every registered dataset gives the same form of splits; oracle: the form written in metaflowkit.types."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import DATASETS


def extracted(fields: Path, folder: Path) -> Path:
    with zipfile.ZipFile(fields) as archive:
        archive.extractall(folder)
    return folder / "EuroSAT_RGB"


CASES: dict[str, Callable[[Path, Path, Path], dict]] = {
    "digits": lambda strokes, fields, folder: {"fractions": {"train": 0.5, "val": 0.2, "test": 0.3}, "image_size": 16},
    "folder": lambda strokes, fields, folder: {"root": str(fields), "depth": 2, "image_size": 16},
    "glyphs": lambda strokes, fields, folder: {"image_size": 28},
    "omniglot": lambda strokes, fields, folder: {"root": str(strokes), "image_size": 14, "rotations": "train"},
    "torchvision": lambda strokes, fields, folder: {"set": "ImageFolder", "root": str(extracted(fields, folder)), "image_size": 16},
}


def test_every_dataset_has_a_case() -> None:
    assert set(CASES) == {name for name, entry in DATASETS.entries().items() if entry.tags["modality"] == "images"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_splits_have_the_one_form(name, strokes, fields, tmp_path) -> None:
    choice = Choice(name, CASES[name](strokes, fields, tmp_path))
    splits, again = DATASETS.build(choice).load(), DATASETS.build(choice).load()
    assert list(splits) == ["train", "val", "test"]
    classes = [c for images in splits.values() for c in images.classes]
    assert len(classes) == len(set(classes))
    shapes = set()
    for split, images in splits.items():
        assert images.x.dtype == torch.uint8
        assert images.y.dtype == torch.int64
        assert images.x.is_contiguous()
        assert images.x.shape[0] == images.y.shape[0]
        assert images.y.unique().tolist() == list(range(len(images.classes)))
        assert len(images.classes) >= 2
        assert all(isinstance(c, str) for c in images.classes)
        assert images.unlabelled() is images.x
        assert len(images.x.flatten(1).unique(dim=0)) > len(images.classes)
        assert torch.equal(images.x, again[split].x)
        assert torch.equal(images.y, again[split].y)
        assert images.classes == again[split].classes
        shapes.add(tuple(images.x.shape[1:]))
    ((channels, height, width),) = shapes
    assert channels in (1, 3)
    assert height == width
