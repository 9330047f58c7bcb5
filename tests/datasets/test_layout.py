"""What paths say of classes and splits; oracle: written out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaflowkit.datasets.layout import read_layout
from metaflowkit.errors import DataError

ROOT = Path("photos")


def meaning(names: list[str], kind: str = "auto", depth: int | None = None) -> tuple[str, dict[str, str]]:
    """The kind, and for each image its split and class."""
    layout = read_layout(ROOT, names, kind, depth)
    return layout.kind, {name: f"{split or ''}:{cls or ''}" for name, split, cls in zip(names, layout.splits, layout.classes, strict=True)}


@pytest.mark.parametrize(
    ("names", "kind", "each"),
    [
        (["1.png", "2.png"], "flat", [":", ":"]),
        (["all/1.png", "all/2.png"], "flat", [":", ":"]),
        (["a/1.png", "b/2.png"], "classes", [":a", ":b"]),
        (["top/a/1.png", "top/b/2.png"], "classes", [":a", ":b"]),
        (["top/sub/a/1.png", "top/sub/b/2.png"], "classes", [":a", ":b"]),
        (["a/x/1.png", "b/2.png"], "classes", [":a", ":b"]),
        (["train/1.png", "car/2.png"], "classes", [":train", ":car"]),
        (["train/a/1.png", "val/b/2.png", "test/c/3.png"], "splits", ["train:a", "val:b", "test:c"]),
        (["Train/a/1.png", "valid/b/2.png", "TEST/c/3.png"], "splits", ["train:a", "val:b", "test:c"]),
        (["top/train/a/1.png", "top/validation/b/2.png"], "splits", ["train:a", "val:b"]),
        (["train/1.png", "val/b/2.png", "test/c/3.png"], "splits", ["train:", "val:b", "test:c"]),
        (["train/1.png", "train/2.png"], "splits", ["train:", "train:"]),
        (["test/a/1.png", "test/b/2.png"], "splits", ["test:a", "test:b"]),
    ],
    ids=str,
)
def test_what_auto_recognises(names, kind, each) -> None:
    assert meaning(names) == (kind, dict(zip(names, each)))


@pytest.mark.parametrize(
    ("names", "kind", "depth", "each"),
    [
        (["a/1.png", "2.png", "train/b/3.png"], "flat", None, [":", ":", ":"]),
        (["top/a/1.png", "top/b/2.png"], "auto", 2, [":top/a", ":top/b"]),
        (["train/a/1.png", "test/b/2.png"], "auto", 1, [":train", ":test"]),
        (["train/a/1.png", "test/b/2.png"], "classes", None, [":train", ":test"]),
        (["train/a/1.png", "test/b/2.png"], "classes", 2, [":train/a", ":test/b"]),
        (["top/only/1.png", "top/only/2.png"], "classes", None, [":only", ":only"]),
        (["only/1.png", "only/2.png"], "classes", None, [":only", ":only"]),
        (["train/x/a/1.png", "test/x/b/2.png"], "splits", 2, ["train:x/a", "test:x/b"]),
        (["top/train/a/1.png", "top/test/b/2.png"], "splits", None, ["train:a", "test:b"]),
    ],
    ids=str,
)
def test_what_the_user_says_takes_precedence(names, kind, depth, each) -> None:
    assert list(meaning(names, kind, depth)[1].values()) == each


@pytest.mark.parametrize(
    ("names", "kind", "depth", "says"),
    [
        (
            ["1.png", "a/2.png"],
            "auto",
            None,
            "photos: holds images directly and in folders, such as 1.png and a/2.png; set dataset.layout to flat to learn from all of them without classes, "
            "or move each into the folder of its class",
        ),
        (
            ["a/1.png", "b/c/2.png"],
            "auto",
            2,
            "photos: a/1.png: lies less than 2 folders deep; set dataset.depth to the levels that name a class, or dataset.layout to flat where there are no classes",
        ),
        (["1.png"], "classes", None, "photos: 1.png: lies less than 1 folders deep"),
        (["train/a/1.png", "val/2.png"], "auto", None, "photos: val/2.png: lies less than 1 folders deep"),
        (["train/a/1.png", "train/2.png"], "splits", None, "photos: train/2.png: lies less than 1 folders deep"),
        (
            ["train/a/1.png", "tset/b/2.png"],
            "splits",
            None,
            "photos: tset/b/2.png: lies in none of the folders train, val, valid, validation, test; move it there, or set dataset.layout to classes or flat",
        ),
        (["1.png"], "splits", None, "photos: 1.png: lies in none of the folders train"),
    ],
    ids=str,
)
def test_what_is_ambiguous_or_does_not_fit_is_named(names, kind, depth, says) -> None:
    with pytest.raises(DataError) as caught:
        read_layout(ROOT, names, kind, depth)
    assert str(caught.value).startswith(says)


def test_class_names_that_are_no_utf8_can_be_printed() -> None:
    layout = read_layout(ROOT, ["caf\udce9/1.png", "caf\udcea/1.png"])
    assert layout.classes == ("caf\\xe9", "caf\\xea")


def test_of_some_images() -> None:
    layout = read_layout(ROOT, ["train/a/1.png", "val/b/2.png", "test/c/3.png"]).of([2, 0])
    assert (layout.classes, layout.splits) == (("c", "a"), ("test", "train"))
