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
    stored = everything(Folder(str(fields), depth=2, image_size=32).load())
    from PIL import Image

    with zipfile.ZipFile(fields) as archive:
        for c in CLASSES:
            names = sorted(n for n in archive.namelist() if f"/{c}/" in n)
            images = np.stack([np.asarray(Image.open(archive.open(n))) for n in names])
            assert torch.equal(stored[f"EuroSAT_RGB/{c}"], torch.from_numpy(images).movedim(-1, 1))


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
    for settings in ({"depth": 1}, {"layout": "classes"}):
        with pytest.raises(DataError, match=r"holds one class, 'only'.*\(or set dataset\.depth, or dataset\.layout to flat\)"):
            Folder(str(tmp_path), **settings).load()


def test_a_top_folder_that_holds_everything_does_not_count(fields, tree) -> None:
    for root in (fields, tree.parent, tree):
        stored = everything(Folder(str(root), image_size=8).load())
        assert sorted(stored) == CLASSES
        assert torch.equal(stored["Class3"], everything(Folder(str(fields), depth=2, image_size=8).load())["EuroSAT_RGB/Class3"])


def tones(root: Path, *names: str) -> Path:
    """Even images of a tone each, 0, 1, 2, ... in the order of the names."""
    for tone, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(np.full((4, 4, 3), tone, np.uint8)))
    return root


def summary(splits) -> dict[str, dict[str, list[int]] | list[int]]:
    """The tones of each split's images by class, or in a list where they have no classes."""
    first = {split: images.x[:, 0, 0, 0].tolist() for split, images in splits.items()}
    return {
        split: {name: [t for t, y in zip(first[split], images.y) if y == i] for i, name in enumerate(images.classes)} if images.classes else first[split]
        for split, images in splits.items()
    }


def archived(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root).as_posix())
    return root.with_suffix(".zip")


@pytest.mark.parametrize("names", [("1.png", "2.png", "3.png"), ("all/1.png", "all/2.png", "all/3.png")], ids=["direct", "in a top folder"])
def test_images_without_classes_all_train(tmp_path, names) -> None:
    root = tones(tmp_path / "photos", *names)
    for place in (root, archived(root)):
        splits = Folder(str(place), image_size=4).load()
        assert summary(splits) == {"train": [0, 1, 2], "val": [], "test": []}
        assert all(images.x.shape[1:] == (3, 4, 4) and images.classes == () and len(images.y) == 0 for images in splits.values())


def test_nested_images_without_classes_where_the_user_says_so(tmp_path) -> None:
    root = tones(tmp_path, "2019/05/1.png", "2019/2.png", "2020/3.png", "4.png")
    assert summary(Folder(str(root), image_size=4, layout="flat").load()) == {"train": [0, 1, 2, 3], "val": [], "test": []}
    with pytest.raises(DataError, match=r"holds images directly and in folders, such as 4\.png and 2019/05/1\.png; set dataset\.layout to flat"):
        Folder(str(root), image_size=4).load()


def test_splits_are_taken_as_they_lie(tmp_path) -> None:
    root = tones(tmp_path / "set", "train/a/1.png", "train/a/2.png", "train/b/1.png", "valid/c/1.png", "test/d/1.png", "test/e/1.png")
    expected = {"train": {"a": [0, 1], "b": [2]}, "val": {"c": [3]}, "test": {"d": [4], "e": [5]}}
    for place in (root, archived(root)):
        assert summary(Folder(str(place), image_size=4).load()) == expected
    assert summary(Folder(str(root), image_size=4, layout="splits", split_seed=3).load()) == expected
    with pytest.raises(
        DataError, match=r"its folders say which images are in which split; leave dataset\.fractions and split_files out, or set dataset\.layout"
    ):
        Folder(str(root), image_size=4, fractions={"train": 1.0}).load()


def test_training_images_may_have_no_classes_where_others_have(tmp_path) -> None:
    root = tones(tmp_path, "train/1.png", "train/2.png", "val/c/1.png", "test/d/1.png")
    assert summary(Folder(str(root), image_size=4).load()) == {"train": [0, 1], "val": {"c": [2]}, "test": {"d": [3]}}


def test_a_class_in_two_splits_is_refused_unless_it_is_asked_for(tmp_path) -> None:
    root = tones(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/d/1.png", "test/a/2.png", "test/b/2.png")
    with pytest.raises(DataError) as caught:
        Folder(str(root), image_size=4).load()
    assert str(caught.value) == (
        f"{root}: class 'a' is in train and in test (2 in all are in several splits); few-shot accuracy is measured on classes that training has not seen, "
        "so keep each in one split, or set dataset.split_by to image for the same classes in training and test"
    )
    splits = Folder(str(root), image_size=4, split_by="image").load()
    assert summary(splits) == {"train": {"a": [0], "b": [1], "c": [2]}, "val": {"d": [3]}, "test": {"a": [4], "b": [5]}}


def test_images_of_each_class_are_shared_out(tmp_path) -> None:
    root = tones(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    load = {seed: summary(Folder(str(root), image_size=4, split_by="image", split_seed=seed).load()) for seed in (0, 1)}
    assert summary(Folder(str(root), image_size=4, split_by="image").load()) == load[0] != load[1]
    for splits in load.values():
        assert {split: {name: len(tones) for name, tones in by_class.items()} for split, by_class in splits.items()} == {
            "train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}, "test": {"a": 2, "b": 2},
        }  # fmt: skip
        for c, name in enumerate("ab"):
            assert sorted(t for by_class in splits.values() for t in by_class[name]) == list(range(10 * c, 10 * c + 10))
    assert [t % 10 for t in load[0]["test"]["a"]] != [t % 10 for t in load[0]["test"]["b"]]  # a draw of its own for each class
    halves = summary(Folder(str(root), image_size=4, split_by="image", fractions={"train": 0.5, "test": 0.5}).load())
    assert [len(halves[split].get("a", [])) if halves[split] else 0 for split in ("train", "val", "test")] == [5, 0, 5]


def test_a_second_root_with_classes_is_measured_on(tmp_path) -> None:
    pool = tones(tmp_path / "pool", "x/1.png", "x/2.png", "3.png")
    classes = tones(tmp_path / "classes", *(f"{c}/1.png" for c in "abcd"))
    splits = summary(Folder(str(pool), image_size=4, labelled_root=str(classes)).load())
    assert splits["train"] == [2, 0, 1]
    assert (len(splits["val"]), len(splits["test"])) == (2, 2)
    assert sorted([*splits["val"], *splits["test"]]) == list("abcd")
    tested = summary(Folder(str(pool), image_size=4, labelled_root=str(classes), fractions={"test": 1.0}).load())
    assert (tested["val"], sorted(tested["test"])) == ([], list("abcd"))
    lying = tones(tmp_path / "lying", "val/a/1.png", "test/b/1.png")
    assert summary(Folder(str(pool), image_size=4, labelled_root=str(lying)).load()) == {"train": [2, 0, 1], "val": {"a": [0]}, "test": {"b": [1]}}
    for name, says in [
        ("train/c/1.png", "lying: holds training images, but those of dataset.root are learned from; leave its train/ or dataset.labelled_root out")
    ]:
        tones(lying, name)
        with pytest.raises(DataError, match=says):
            Folder(str(pool), image_size=4, labelled_root=str(lying)).load()
    with pytest.raises(DataError, match="pool/x: holds images and no class folders; accuracy is measured on classes, so give each a folder"):
        Folder(str(pool), image_size=4, labelled_root=str(pool / "x")).load()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"split_by": "image", "split_files": {"train": "list.txt"}},
            "split_by 'image' draws images of the same classes; leave split_files and labelled_root out",
        ),
        ({"split_by": "image", "labelled_root": "b"}, "split_by 'image' draws images of the same classes; leave split_files and labelled_root out"),
        ({"layout": "flat", "depth": 1}, "layout 'flat' has no classes that depth could name; leave one of them out"),
        ({"layout": "classes", "labelled_root": "b"}, "with labelled_root all images of root are training images without classes, got layout 'classes'"),
        ({"labelled_root": "b", "fractions": {"train": 0.5}}, "with labelled_root the training images are those of root; name val and test alone"),
    ],
)
def test_settings_that_exclude_each_other(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Folder("a", **settings)


@pytest.mark.parametrize("settings", [{"fractions": {"train": 1.0}}, {"split_files": {"train": "list.txt"}}, {"split_by": "image"}], ids=str)
def test_images_without_classes_cannot_be_split(tmp_path, settings) -> None:
    with pytest.raises(
        DataError, match=r"has no classes to split; leave dataset\.fractions, split_files and split_by out, or put images into a folder per class"
    ):
        Folder(str(tones(tmp_path, "1.png")), image_size=4, **settings).load()


def test_unreadable_files_are_left_out_and_counted_each_time(tmp_path, caplog) -> None:
    root = tones(tmp_path, *(f"{c}/{i}.png" for c in "abcde" for i in range(2)))
    for name in ("a/0.png", "c/1.png"):
        (root / name).write_bytes(b"none")
    with pytest.raises(
        DataError, match=r"2 of 10 images cannot be read; mend or remove them, or leave them out with dataset\.unreadable: skip\n  a/0\.png: .*\n  c/1"
    ):
        Folder(str(root), image_size=4).load()
    for _ in range(2):
        caplog.clear()
        splits = summary(Folder(str(root), image_size=4, unreadable="skip").load())
        assert {name: tones for by_class in splits.values() for name, tones in by_class.items()} == {"a": [1], "b": [2, 3], "c": [4], "d": [6, 7], "e": [8, 9]}
        (record,) = caplog.records
        assert record.getMessage().startswith(f"{root}: left out 2 of 10 images, which cannot be read\n  a/0.png: is no image in a known format\n  c/1.png: ")


def test_alpha_is_the_ground_of_transparent_pixels(tmp_path) -> None:
    from PIL import Image

    tones(tmp_path, "a/1.png", "b/1.png")
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (90, 90, 90, 255)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / name / "1.png")
    for alpha, tone in (("white", 255), ("black", 0)):
        for x in everything(Folder(str(tmp_path), image_size=4, alpha=alpha).load()).values():
            assert x[0, 0, :, 0].tolist() == [90, 90, tone, tone]


def test_another_layout_is_read_from_the_same_entry_of_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    root = tones(tmp_path / "set", "train/a/1.png", "val/b/1.png", "test/c/1.png")
    for settings in ({}, {"layout": "flat"}, {"depth": 2}, {"unreadable": "skip"}, {"split_by": "image"}):
        Folder(str(root), image_size=4, **settings).load()
        assert len(list((tmp_path / "cache").iterdir())) == 1
    for i, settings in enumerate([{"invert": True}, {"mode": "grey"}, {"alpha": "black"}, {"image_size": 3}]):
        Folder(str(root), **{"image_size": 4, **settings}).load()
        assert len(list((tmp_path / "cache").iterdir())) == i + 2


def test_a_cut_image_is_named(tree) -> None:
    path = tree / "Class4" / "Class4_7.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"EuroSAT_RGB: 1 of 250 images cannot be read; mend or remove them, or leave .*\n  Class4/Class4_7\.png: is damaged"):
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
    stored = everything(splits)
    assert {split: len(images.classes) for split, images in splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert {name.split("/")[1] for name in stored} == {
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
    }  # fmt: skip
    assert {tuple(x.shape) for x in stored.values()} == {(200, 3, 64, 64)}
    means = {name.split("/")[1]: x.float().mean((0, 2, 3)) for name, x in stored.items()}
    assert means["SeaLake"][2] > means["SeaLake"][0]  # water is more blue than red
    assert means["Industrial"].mean() > means["Forest"].mean()


def test_what_a_reader_of_an_accuracy_must_know_is_noted(tmp_path) -> None:
    classes = tones(tmp_path / "classes", *(f"{c}/{i}.png" for c in "abcde" for i in range(5)))
    flat = tones(tmp_path / "flat", "1.png", "2.png")

    def notes(root: Path, **settings) -> list[str]:
        return [images.note for images in Folder(str(root), image_size=4, **settings).load().values()]

    seen = "same classes in training and test (other images of them), not new classes"
    assert notes(classes) == ["", "", ""]
    assert notes(classes, split_by="image") == ["", seen, seen]
    unknown = "training images have no classes, so the measured ones may be among them"
    assert sorted(notes(flat, labelled_root=str(classes))) == ["", unknown, unknown]
    assert notes(flat) == ["", "", ""]
    assert notes(classes, fractions={"test": 1.0}) == ["", "", ""]
