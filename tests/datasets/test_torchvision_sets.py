"""Sets of torchvision; oracles: the raw files that the test wrote in MNIST's and ImageFolder's forms, and a stand-in set."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from metaflowkit.datasets import cache_file
from metaflowkit.datasets.mapped import MappedRows
from metaflowkit.datasets.torchvision_sets import TorchvisionSet
from metaflowkit.errors import DataError
from tests.conftest import png


class Stand:
    """Ten images per part, class i % 5, image i of a tone of its own; it has no part ``val``."""

    classes = ["ant", "bee", "cat", "dog", "eel"]
    labels = [i % 5 for i in range(10)]

    def __init__(self, root: str, split: str = "train") -> None:
        if split not in ("train", "test"):
            raise ValueError(f"unknown split {split}")
        self.base = 0 if split == "train" else 100

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int):
        return Image.fromarray(np.full((8, 8, 3), self.base + i, np.uint8)), self.labels[i]


@pytest.fixture
def stand(monkeypatch):
    """Puts a set in the place of torchvision's STL10."""

    def put(**changes):
        cls = type("Stand", (Stand,), changes)
        monkeypatch.setattr(torchvision.datasets, "STL10", cls)
        return cls

    return put


def tones(splits) -> dict[str, list[int]]:
    return {name: images.x[images.y == i][:, 0, 0, 0].tolist() for images in splits.values() for i, name in enumerate(images.classes)}


def test_parts_are_put_together_and_classes_split(stand) -> None:
    stand()
    splits = TorchvisionSet("STL10", image_size=8).load()
    assert {split: len(images.classes) for split, images in splits.items()} == {"train": 3, "val": 1, "test": 1}
    assert tones(splits) == {name: [i, i + 5, 100 + i, 105 + i] for i, name in enumerate(Stand.classes)}
    drawn = {TorchvisionSet("STL10", image_size=8, split_seed=seed).load()["test"].classes for seed in range(5)}
    assert len(drawn) > 1


def test_a_large_set_is_mapped_and_the_same(stand, monkeypatch, tmp_path) -> None:
    stand()
    (tmp_path / "file").write_bytes(b"of the set")
    expected = TorchvisionSet("STL10", root=str(tmp_path), image_size=8).load()
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path.parent / "another cache"))
    monkeypatch.setattr(cache_file, "MAPPED", 100)
    for _ in range(2):
        for split, images in TorchvisionSet("STL10", root=str(tmp_path), image_size=8).load().items():
            assert isinstance(images.x, MappedRows)
            assert torch.equal(images.x.read(), expected[split].x)
            assert (images.classes, images.y.tolist()) == (expected[split].classes, expected[split].y.tolist())


def test_classes_by_split(stand) -> None:
    stand()
    chosen = {"train": ["eel", "ant"], "test": ["bee"]}
    splits = TorchvisionSet("STL10", image_size=8, classes=chosen).load()
    assert {split: list(images.classes) for split, images in splits.items()} == chosen
    assert tones(splits)["eel"] == [4, 9, 104, 109]
    with pytest.raises(DataError, match=r"dataset\.classes\.test: there is no class 'bees' among 5; did you mean 'bee'\?"):
        TorchvisionSet("STL10", classes={"train": ["ant"], "test": ["bees"]}).load()


@pytest.mark.parametrize("classes", [{"train": ["ant", "bee"], "test": ["bee"]}, {"trian": ["bee"]}], ids=["in two splits", "unknown split"])
def test_class_lists_that_leak_or_name_no_split_are_refused(stand, classes) -> None:
    stand()
    with pytest.raises((DataError, ValueError), match="bee|trian"):
        TorchvisionSet("STL10", image_size=8, classes=classes).load()


def test_shares_and_classes_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="keep one"):
        TorchvisionSet("MNIST", fractions={"train": 1.0}, classes={"train": ["1"]})
    with pytest.raises(ValueError, match="add up to at most 1"):
        TorchvisionSet("MNIST", fractions={"train": 2.0})


def test_an_unknown_set_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"dataset\.set: torchvision has no data set 'FashonMNIST'; did you mean 'FashionMNIST'\?"):
        TorchvisionSet("FashonMNIST").load()


def test_a_set_that_labels_with_masks_is_refused(stand) -> None:
    stand(labels=[Image.new("L", (2, 2))] * 10)
    with pytest.raises(DataError, match="STL10 labels its images with Image, not with one class each; choose a classification set"):
        TorchvisionSet("STL10").load()


def test_a_set_without_class_names_has_numbers(stand) -> None:
    stand(classes=None)
    assert sorted(tones(TorchvisionSet("STL10", image_size=8).load())) == ["0", "1", "2", "3", "4"]


def test_other_labels_or_class_names_are_no_old_entry_of_the_cache(stand) -> None:
    stand()
    TorchvisionSet("STL10", image_size=8).load()
    stand(classes=["a", "b", "c", "d", "e"])
    assert sorted(tones(TorchvisionSet("STL10", image_size=8).load())) == ["a", "b", "c", "d", "e"]
    stand(labels=[i // 2 for i in range(10)])
    assert tones(TorchvisionSet("STL10", image_size=8).load())["ant"] == [0, 1, 100, 101]


def write_mnist(root, rng) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ten images per part, one of each digit, in MNIST's idx format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    parts = {}
    for part in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8), rng.permutation(10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 10) + labels.tobytes())
        parts[part] = (images, labels)
    return parts


def test_mnist_from_its_raw_files(tmp_path) -> None:
    parts = write_mnist(tmp_path, np.random.default_rng(0))
    splits = TorchvisionSet("MNIST", root=str(tmp_path), mode="grey", fractions={"train": 0.5, "test": 0.5}).load()
    stored = {name: images.x[images.y == i][:, 0] for images in splits.values() for i, name in enumerate(images.classes)}
    assert len(stored) == 10
    assert "7 - seven" in stored
    for name, x in stored.items():
        expected = np.stack([images[labels == int(name[0])][0] for images, labels in parts.values()])
        assert torch.equal(x, torch.from_numpy(expected))


@pytest.mark.parametrize(("mode", "channels"), [("grey", 1), ("color", 3)])
def test_image_size_and_mode(tmp_path, mode, channels) -> None:
    write_mnist(tmp_path, np.random.default_rng(0))
    assert TorchvisionSet("MNIST", root=str(tmp_path), mode=mode, image_size=14).load()["train"].x.shape == (12, channels, 14, 14)


def test_an_image_folder_through_torchvision(tmp_path) -> None:
    for c, name in enumerate(("apple", "birch", "cedar")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(np.full((8, 8, 3), 50 * c, np.uint8)))
    splits = TorchvisionSet("ImageFolder", root=str(tmp_path), image_size=8, fractions={"train": 1.0}).load()
    assert tones(splits) == {"apple": [0], "birch": [50], "cedar": [100]}


def write_folder(root, count: int) -> None:
    for c, name in enumerate(("apple", "birch")):
        (root / name).mkdir()
        for i in range(count):
            (root / name / f"{i:03d}.png").write_bytes(png(np.full((8, 8, 3), 100 * c, np.uint8)))


def test_one_changed_image_among_many_is_no_old_entry_of_the_cache(tmp_path) -> None:
    write_folder(tmp_path, 100)

    def brightest() -> int:
        return int(TorchvisionSet("ImageFolder", root=str(tmp_path), image_size=8, fractions={"train": 1.0}).load()["train"].x.max())

    assert brightest() == 100
    (tmp_path / "birch" / "051.png").write_bytes(png(np.full((8, 8, 3), 201, np.uint8)))
    assert brightest() == 201


def test_one_changed_pixel_of_a_set_in_memory_is_no_old_entry_of_the_cache(tmp_path) -> None:
    write_mnist(tmp_path, np.random.default_rng(0))
    raw = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    before = TorchvisionSet("MNIST", root=str(tmp_path), fractions={"train": 1.0}).load()["train"].x.long().sum()
    content = bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(bytes(content))
    assert abs(TorchvisionSet("MNIST", root=str(tmp_path), fractions={"train": 1.0}).load()["train"].x.long().sum() - before) == 3


def test_a_damaged_image_is_named(tmp_path) -> None:
    write_folder(tmp_path, 3)
    file = tmp_path / "birch" / "001.png"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"ImageFolder: .*birch/001\.png: is no readable image \(.*\); mend that file or download the set again"):
        TorchvisionSet("ImageFolder", root=str(tmp_path), image_size=8, fractions={"train": 1.0}).load()


def test_missing_files_and_sets_that_need_more(tmp_path) -> None:
    with pytest.raises(DataError, match=r"torchvision cannot open MNIST \(.*\); set dataset\.root, or dataset\.download=true to fetch it"):
        TorchvisionSet("MNIST", root=str(tmp_path / "none")).load()
    with pytest.raises(DataError, match=r"torchvision cannot open EMNIST \(.*\); it needs arguments that this data set cannot give"):
        TorchvisionSet("EMNIST", root=str(tmp_path / "none")).load()
