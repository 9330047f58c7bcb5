"""Splits by class; oracles: set arithmetic, and hand-made labels."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.datasets.splits import draw_fractions, draw_images, grouped, listed, read_list, select, unlabelled
from metaflowkit.errors import DataError


@pytest.mark.parametrize("count", [0, 1, 2, 7, 10, 50])
@pytest.mark.parametrize("fractions", [{"train": 0.6, "val": 0.2, "test": 0.2}, {"test": 1.0}, {"train": 0.5, "test": 0.3}])
def test_every_class_goes_to_at_most_one_split_in_the_asked_shares(count, fractions) -> None:
    dealt = draw_fractions(count, fractions, 0)
    members = [c for chosen in dealt.values() for c in chosen]
    assert len(members) == len(set(members)) == round(sum(fractions.values()) * count)
    assert set(members) <= set(range(count))
    for split in ("train", "val", "test"):
        assert abs(len(dealt[split]) - fractions.get(split, 0) * count) < 1
        assert dealt[split] == sorted(dealt[split])


def test_the_seed_alone_decides_the_draw() -> None:
    shares = {"train": 0.5, "test": 0.5}
    first = draw_fractions(30, shares, 3)
    torch.manual_seed(99)
    assert draw_fractions(30, shares, 3) == first
    assert draw_fractions(30, shares, 4) != first


@pytest.mark.parametrize("fractions", [{"train": 0.8, "val": 0.3}, {"train": -0.1}, {"trian": 0.5}])
def test_wrong_shares_are_refused(fractions) -> None:
    with pytest.raises(ValueError, match="fractions must name train, val and test with shares that add up to at most 1, got"):
        draw_fractions(10, fractions, 0)


def test_select_keeps_the_images_of_the_chosen_classes_and_relabels_them() -> None:
    x = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    images = select(x, torch.tensor([2, 0, 1, 2, 0, 1]), ["a", "b", "c"], [2, 0])
    assert images.x.flatten().tolist() == [0, 3, 1, 4]
    assert images.y.tolist() == [0, 0, 1, 1]
    assert images.classes == ("c", "a")


def test_select_of_no_class_is_empty_and_keeps_the_image_shape() -> None:
    images = select(torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ["a"], [])
    assert images.x.shape == (0, 3, 5, 5)
    assert (len(images.y), images.classes) == (0, ())


def test_a_listed_class_that_does_not_exist_is_named_with_the_nearest() -> None:
    assert listed(["a/x", "a/y", "b/z"], ["b/z", "a/x"], "here") == [2, 0]
    with pytest.raises(DataError, match=r"train\.txt: there is no class 'Latin/caracter01' among 2; did you mean 'Latin/character01'\?"):
        listed(["Greek/alpha", "Latin/character01"], ["Latin/caracter01"], "train.txt")


def test_lists_skip_blank_lines_and_comments(write) -> None:
    assert read_list(str(write("# mine\n\n a b \nc\n", "list.txt"))) == ["a b", "c"]


def test_unreadable_and_empty_lists(write, tmp_path) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    for path, says in [
        (tmp_path / "none.txt", "the list of classes cannot be read"),
        (tmp_path / "latin1.txt", "the list of classes cannot be read"),
        (write("# nothing\n\n", "empty.txt"), "names no class; write one class per line"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            read_list(str(path))
        assert str(path) in str(caught.value)


def test_images_are_dealt_within_each_class() -> None:
    classes = [name for name in "abc" for _ in range(10)]
    dealt = draw_images(classes, {"train": 0.5, "test": 0.3}, 0)
    assert {split: [sum(classes[i] == name for i in rows) for name in "abc"] for split, rows in dealt.items()} == {
        "train": [5, 5, 5], "val": [0, 0, 0], "test": [3, 3, 3],
    }  # fmt: skip
    assert len({i for rows in dealt.values() for i in rows}) == 24
    assert draw_images(classes, {"train": 0.5, "test": 0.3}, 0) == dealt != draw_images(classes, {"train": 0.5, "test": 0.3}, 1)


def test_grouped_keeps_the_rows_class_by_class_and_leaves_out_classes_without_images() -> None:
    x = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1)
    images = grouped(x, ["c", "a", "b", "a", None], [0, 1, 3])
    assert images.x.flatten().tolist() == [1, 3, 0]
    assert images.y.tolist() == [0, 0, 1]
    assert images.classes == ("a", "c")
    assert grouped(x, ["a"] * 5, []).x.shape == (0, 1, 1, 1)


def test_unlabelled_images_have_neither_labels_nor_classes() -> None:
    images = unlabelled(torch.zeros(4, 3, 5, 5, dtype=torch.uint8))
    assert (len(images.x), len(images.y), images.y.dtype, images.classes) == (4, 0, torch.int64, ())
