"""Folders and zips of images; oracles: the arrays that were written, and the class names in the paths."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from metaflowkit.datasets.folder import Folder
from metaflowkit.errors import DataError
from tests.conftest import png

CLASSES = [f"Class{c}" for c in range(10)]


@pytest.fixture
def tree(fields, tmp_path) -> Path:
    with zipfile.ZipFile(fields) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "EuroSAT_RGB"


def everything(splits) -> dict[str, torch.Tensor]:
    """The images of every class, whatever its split."""
    return {name: images.x[images.y == i] for images in splits.values() for i, name in enumerate(images.classes)}


def assert_equal(one, other) -> None:
    assert list(one) == list(other)
    for split in one:
        assert torch.equal(one[split].x, other[split].x)
        assert torch.equal(one[split].y, other[split].y)


def lists(write, **splits: list[str]) -> dict[str, str]:
    return {split: str(write("\n".join(names) + "\n", f"{split}.txt")) for split, names in splits.items()}


def test_depth_says_which_folders_name_a_class(tree) -> None:
    assert sorted(everything(Folder(str(tree), depth=1, image_size=32).load())) == CLASSES
    deeper = everything(Folder(str(tree.parent), depth=2, image_size=32).load())
    assert sorted(deeper) == [f"EuroSAT_RGB/{name}" for name in CLASSES]
    assert {len(x) for x in deeper.values()} == {25}
    with pytest.raises(DataError, match=r"Class0/Class0_0\.png: lies less than 2 folders deep; set dataset\.depth"):
        Folder(str(tree), depth=2).load()


def test_a_zip_equals_its_tree(fields, tree) -> None:
    settings = {"depth": 2, "image_size": 16}
    assert_equal(Folder(str(fields), **settings).load(), Folder(str(tree.parent), **settings).load())


def test_pixels_are_those_of_the_files(fields) -> None:
    found = everything(Folder(str(fields), depth=2, image_size=32).load())
    from PIL import Image

    with zipfile.ZipFile(fields) as archive:
        for c in CLASSES:
            names = sorted(n for n in archive.namelist() if f"/{c}/" in n)
            images = np.stack([np.asarray(Image.open(archive.open(n))) for n in names])
            assert torch.equal(found[f"EuroSAT_RGB/{c}"], torch.from_numpy(images).movedim(-1, 1))


def test_mode_size_and_invert(fields) -> None:
    plain, inverted, grey = (
        everything(Folder(str(fields), depth=2, image_size=32, **more).load())["EuroSAT_RGB/Class3"] for more in ({}, {"invert": True}, {"mode": "grey"})
    )
    assert torch.equal(inverted, 255 - plain)
    assert grey.shape == (25, 1, 32, 32)
    luma = (plain.float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert (grey - luma).abs().max() <= 1
    assert everything(Folder(str(fields), depth=2).load())["EuroSAT_RGB/Class3"].shape == (25, 3, 84, 84)


def test_shares_and_seed(fields) -> None:
    load = {seed: Folder(str(fields), depth=2, image_size=8, fractions={"train": 0.5, "val": 0.1, "test": 0.4}, split_seed=seed).load() for seed in (0, 1, 2)}
    for splits in load.values():
        assert {split: len(images.classes) for split, images in splits.items()} == {"train": 5, "val": 1, "test": 4}
        assert len(everything(splits)) == 10
    again = Folder(str(fields), depth=2, image_size=8, fractions={"train": 0.5, "val": 0.1, "test": 0.4}, split_seed=1).load()
    assert_equal(load[1], again)
    assert len({splits["train"].classes for splits in load.values()}) > 1
    default = Folder(str(fields), depth=2, image_size=8).load()
    assert {split: len(images.classes) for split, images in default.items()} == {"train": 6, "val": 2, "test": 2}


def test_lists_of_classes(tree, write) -> None:
    files = lists(write, train=["Class9", "Class1"], test=["Class4"])
    splits = Folder(str(tree), image_size=8, split_files=files).load()
    assert {split: images.classes for split, images in splits.items()} == {"train": ("Class9", "Class1"), "test": ("Class4",)}
    whole = everything(Folder(str(tree), image_size=8).load())
    for name, x in everything(splits).items():
        assert torch.equal(x, whole[name])


def test_a_listed_class_that_does_not_exist(tree, write) -> None:
    files = lists(write, train=["Class1", "Clas2"])
    with pytest.raises(DataError, match=r"train\.txt: there is no class 'Clas2' among 10; did you mean 'Class2'\?"):
        Folder(str(tree), split_files=files).load()


@pytest.mark.parametrize(
    "splits",
    [{"train": ["Class1", "Class2"], "test": ["Class2", "Class3"]}, {"train": ["Class1", "Class2", "Class1"]}],
    ids=["in two splits", "twice in one"],
)
def test_a_class_listed_twice_is_refused(tree, write, splits) -> None:
    files = lists(write, **splits)
    with pytest.raises((DataError, ValueError), match=r"Class[12]"):
        Folder(str(tree), image_size=8, split_files=files).load()


def test_a_list_for_an_unknown_split_is_refused(tree, write) -> None:
    files = lists(write, trian=["Class1", "Class2"])
    with pytest.raises((DataError, ValueError), match="trian"):
        Folder(str(tree), image_size=8, split_files=files).load()


def test_shares_and_lists_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="keep one"):
        Folder("anywhere", fractions={"train": 1.0}, split_files={"train": "list.txt"})
    with pytest.raises(ValueError, match="add up to at most 1"):
        Folder("anywhere", fractions={"train": 1.0, "test": 0.5})


def test_one_class_is_too_few(fields, tmp_path) -> None:
    with pytest.raises(DataError, match="holds one class, 'EuroSAT_RGB'; few-shot tasks need at least two folders of images"):
        Folder(str(fields), depth=1).load()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "1.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    with pytest.raises(DataError, match="holds one class, 'only'"):
        Folder(str(tmp_path)).load()


def test_a_cut_image_is_named(tree) -> None:
    path = tree / "Class4" / "Class4_7.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"EuroSAT_RGB: Class4/Class4_7\.png: is no readable image"):
        Folder(str(tree), image_size=8).load()


def test_roots_that_hold_nothing(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("hello")
    for name, says in [("none", "does not exist; set dataset.root"), ("empty", "holds no image"), ("text.zip", "is neither a folder nor a whole zip file")]:
        with pytest.raises(DataError, match=says):
            Folder(str(tmp_path / name)).load()


def test_changed_files_are_decoded_again(tree) -> None:
    before = everything(Folder(str(tree), image_size=32).load())["Class0"]
    (tree / "Class0" / "Class0_0.png").write_bytes(png(np.full((32, 32, 3), 7, np.uint8)))
    after = everything(Folder(str(tree), image_size=32).load())["Class0"]
    assert (after[0] == 7).all()
    assert torch.equal(after[1:], before[1:])
    (tree / "Class0").rename(tree / "Renamed")
    assert torch.equal(everything(Folder(str(tree), image_size=32).load())["Renamed"][0], after[0])


def test_real_eurosat(data) -> None:
    splits = Folder(str(data / "eurosat" / "eurosat_2000.zip"), depth=2, image_size=64).load()
    found = everything(splits)
    assert {split: len(images.classes) for split, images in splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert {name.split("/")[1] for name in found} == {
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
    }  # fmt: skip
    assert {tuple(x.shape) for x in found.values()} == {(200, 3, 64, 64)}
    means = {name.split("/")[1]: x.float().mean((0, 2, 3)) for name, x in found.items()}
    assert means["SeaLake"][2] > means["SeaLake"][0]  # water is more blue than red
    assert means["Industrial"].mean() > means["Forest"].mean()
