"""Omniglot; oracles: the drawings in the zips read by Pillow alone, the published counts, and rot90 by numpy."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.datasets import cache_file
from metaflowkit.datasets.mapped import MappedRows
from metaflowkit.datasets.omniglot import Omniglot
from metaflowkit.errors import DataError

TRAIN = ["images_background/Alphabet_b1/character03", "images_evaluation/Alphabet_e0/character20"]
TEST = ["images_background/Alphabet_b4/character01"]


def drawings(root: Path, name: str) -> np.ndarray:
    """Every drawing of a class as it lies in the zip, black on white."""
    with zipfile.ZipFile(root / f"{name.split('/')[0]}.zip") as archive:
        members = sorted(n for n in archive.namelist() if n.startswith(name + "/") and n.endswith(".png"))
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("L")) for n in members])


def alphabets(images) -> set[str]:
    return {name.rsplit("/", 1)[0] for name in images.classes}


@pytest.fixture
def files(write) -> dict[str, str]:
    return {"train": str(write("\n".join(TRAIN), "train.txt")), "test": str(write("\n".join(TEST), "test.txt"))}


def test_the_lake_split_keeps_alphabets_whole(strokes) -> None:
    splits = Omniglot(str(strokes)).load()
    assert {split: (len(images.classes), len(images.x)) for split, images in splits.items()} == {"train": (80, 1600), "val": (20, 400), "test": (20, 400)}
    assert alphabets(splits["test"]) == {"images_evaluation/Alphabet_e0"}
    assert not alphabets(splits["train"]) & alphabets(splits["val"])
    assert alphabets(splits["train"]) | alphabets(splits["val"]) == {f"images_background/Alphabet_b{a}" for a in range(5)}
    assert {len(Omniglot(str(strokes), val_fraction=f).load()["val"].classes) for f in (0.0, 0.4, 1.0)} == {0, 40, 100}


def test_the_seed_draws_the_validation_alphabets(strokes) -> None:
    drawn = [alphabets(Omniglot(str(strokes), split_seed=seed).load()["val"]) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({frozenset(d) for d in drawn}) > 1


def test_images_are_the_drawings_in_white_on_black(strokes) -> None:
    for images in Omniglot(str(strokes)).load().values():
        for i in (0, len(images.classes) - 1):
            assert np.array_equal(images.x[images.y == i][:, 0].numpy(), 255 - drawings(strokes, images.classes[i]))


def test_image_size_takes_effect(strokes) -> None:
    small = Omniglot(str(strokes), image_size=7).load()["test"]
    assert small.x.shape == (400, 1, 7, 7)
    assert np.array_equal(small.x[:20, 0].numpy(), 255 - drawings(strokes, small.classes[0])[:, ::4, ::4])  # the drawings are blocks of 4x4


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("rotations", ["none", "train", "all"])
def test_rotations_are_further_classes(strokes, rotations, large, monkeypatch) -> None:
    plain = Omniglot(str(strokes)).load()
    monkeypatch.setattr(cache_file, "MAPPED", 1 << (10 if large else 28))
    turned = Omniglot(str(strokes), rotations=rotations).load()
    assert isinstance(turned["train"].x, MappedRows) == (large and rotations != "none")
    for split, images in turned.items():
        if rotations == "none" or (rotations == "train" and split != "train"):
            assert images.classes == plain[split].classes
            assert torch.equal(images.x, plain[split].x)
            continue
        n = len(plain[split].classes)
        assert len(set(images.classes)) == 4 * n
        assert torch.equal(torch.bincount(images.y), torch.full((4 * n,), 20))
        for k in range(4):
            for c in (0, n - 1):
                original = plain[split].x[plain[split].y == c].numpy()
                assert np.array_equal(images.x[images.y == c + k * n].numpy(), np.rot90(original, k, (2, 3)))
                assert images.classes[c + k * n] == plain[split].classes[c] + (f"@{90 * k}" if k else "")


def test_split_files(strokes, files) -> None:
    splits = Omniglot(str(strokes), split="file", split_files=files).load()
    assert {split: images.classes for split, images in splits.items()} == {"train": tuple(TRAIN), "test": tuple(TEST)}
    for images in splits.values():
        for i, name in enumerate(images.classes):
            assert np.array_equal(images.x[images.y == i][:, 0].numpy(), 255 - drawings(strokes, name))


def test_a_listed_class_that_does_not_exist(strokes, write) -> None:
    path = write(f"{TRAIN[0]}\nimages_background/Alphabet_b1/caracter04\n", "train.txt")
    with pytest.raises(
        DataError, match=r"train\.txt: there is no class '\S+/caracter04' among 120; did you mean 'images_background/Alphabet_b1/character04'\?"
    ):
        Omniglot(str(strokes), split="file", split_files={"train": str(path)}).load()


def test_a_class_listed_in_two_splits_is_refused(strokes, files, write) -> None:
    write(TRAIN[0], "test.txt")
    with pytest.raises((DataError, ValueError), match="character03"):
        Omniglot(str(strokes), split="file", split_files=files).load()


@pytest.mark.parametrize("split_files", [None, {}, {"trian": "a.txt"}])
def test_split_file_needs_lists(split_files) -> None:
    with pytest.raises(ValueError, match="split 'file' needs split_files with a path for train, val and test"):
        Omniglot(split="file", split_files=split_files)


@pytest.mark.parametrize("below", ["", "omniglot-py"])
def test_folder_trees_equal_the_zips(strokes, tmp_path, below) -> None:
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(strokes / f"{part}.zip") as archive:
            archive.extractall(tmp_path / below)
    zips, trees = Omniglot(str(strokes)).load(), Omniglot(str(tmp_path)).load()
    for split, images in zips.items():
        assert torch.equal(images.x, trees[split].x)
        assert torch.equal(images.y, trees[split].y)
        assert images.classes == trees[split].classes


def test_a_root_without_omniglot(strokes, tmp_path) -> None:
    with pytest.raises(DataError, match=r"nowhere: holds neither images_background nor images_background\.zip; set dataset\.root, or dataset\.download=true"):
        Omniglot(str(tmp_path / "nowhere")).load()
    (tmp_path / "images_background.zip").write_bytes((strokes / "images_background.zip").read_bytes())
    with pytest.raises(DataError, match=r"holds neither images_evaluation nor images_evaluation\.zip"):
        Omniglot(str(tmp_path)).load()
    (tmp_path / "images_evaluation").mkdir()
    with zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w"), pytest.raises(DataError, match="images_evaluation: holds no image"):
        Omniglot(str(tmp_path)).load()


def test_files_outside_alphabets_are_named(strokes, tmp_path) -> None:
    (tmp_path / "images_background.zip").write_bytes((strokes / "images_background.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w") as archive:
        archive.writestr("a/b.png", b"")
    with pytest.raises(DataError, match=r"a/b\.png: is not <alphabet>/<character>/<image>"):
        Omniglot(str(tmp_path)).load()


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch) -> None:
    def offline(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.Omniglot", offline)
    with pytest.raises(DataError, match=r"Omniglot cannot be downloaded \(no network\); check the network or put images_background\.zip there by hand"):
        Omniglot(str(tmp_path), download=True).load()


@pytest.mark.slow
def test_real_omniglot(data) -> None:
    root = data / "omniglot"
    lake = Omniglot(str(root)).load()
    assert len(lake["train"].classes) + len(lake["val"].classes) == 964
    assert len(lake["test"].classes) == 659
    assert (len(alphabets(lake["train"])), len(alphabets(lake["val"])), len(alphabets(lake["test"]))) == (24, 6, 20)
    vinyals = Omniglot(str(root), split="file", split_files={s: str(root / f"vinyals_{s}.txt") for s in ("train", "val", "test")}).load()
    assert {split: len(images.classes) for split, images in vinyals.items()} == {"train": 1028, "val": 172, "test": 423}
    for splits in (lake, vinyals):
        assert len({name for images in splits.values() for name in images.classes}) == 1623
        for images in splits.values():
            assert set(torch.bincount(images.y).tolist()) == {20}
    for images in (lake["train"], vinyals["test"]):
        ink = images.x[images.y == 0].float().mean((1, 2, 3)).numpy()
        assert np.abs(ink - (255 - drawings(root, images.classes[0]).astype(float)).mean((1, 2))).max() < 1
