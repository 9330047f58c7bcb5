"""Glyphs against the fonts themselves: what fontTools says a face holds, and what the missing-glyph box looks like."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
import torch
from PIL import ImageFont

from metaflowkit.datasets import glyphs
from metaflowkit.datasets.glyphs import FACES, Glyphs, _draw, _face_paths, _without_duplicates
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet


@pytest.fixture
def splits():
    return Glyphs().load()


def test_letters_images_and_scripts_are_those_of_the_fonts(splits) -> None:
    counts = {split: (len(images.classes), len(images.x)) for split, images in splits.items()}
    assert counts == {"train": (760, 10_607), "val": (178, 2_458), "test": (393, 4_908)}
    scripts = {split: {unicodedata.name(letter).split()[0] for letter in images.classes} for split, images in splits.items()}
    assert scripts == {"train": {"LATIN", "CYRILLIC"}, "val": {"LATIN"}, "test": {"GREEK", "ARMENIAN", "GEORGIAN"}}
    classes = [letter for images in splits.values() for letter in images.classes]
    assert len(classes) == len(set(classes))


def test_no_image_is_blank_or_the_box_of_a_missing_letter(splits) -> None:
    boxes = {_draw(ImageFont.truetype(str(path), 21), "\U000f0000", 28).tobytes() for path in _face_paths(FACES)}
    assert len(boxes) > 1
    for images in splits.values():
        assert (images.x.flatten(1).max(1).values > 100).all()
        assert not {image.numpy().tobytes() for image in images.x} & boxes


def test_every_class_has_an_image_of_each_face_that_holds_it(splits) -> None:
    from fontTools.ttLib import TTFont

    maps = []
    for path in _face_paths(FACES):
        with TTFont(path) as face:
            maps.append(set(face.getBestCmap()))
    for split, images in splits.items():
        counts = torch.bincount(images.y).tolist()
        faces = [sum(ord(letter) in known for known in maps) for letter in images.classes]
        assert min(faces) >= 10
        if split == "train":
            assert counts == faces
        assert all(face / 2 < count <= face for count, face in zip(counts, faces, strict=True))  # those that lost images keep more than half
        assert sum(count == face for count, face in zip(counts, faces)) > 0.75 * len(faces)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"split_seed": 1},
        {"image_size": 20},
        {"val_script": "cyrillic"},
        {"train": ["greek"], "test": ["latin", "cyrillic", "georgian"], "val_script": "greek"},
    ],
    ids=str,
)
def test_no_evaluation_image_is_a_training_image_or_one_of_another_evaluation_class(settings) -> None:
    splits = Glyphs(**settings).load()
    owners: dict[str, set[tuple[str, str]]] = {}
    for split, images in splits.items():
        for image, label in zip(images.x, images.y.tolist()):
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            owners.setdefault(digest, set()).add(("train", "") if split == "train" else (split, images.classes[label]))
    assert [shared for shared in owners.values() if len(shared) > 1] == []
    assert all(set(images.y.tolist()) == set(range(len(images.classes))) for images in splits.values())
    again = Glyphs(**settings).load()
    assert all(torch.equal(again[s].x, splits[s].x) and again[s].classes == splits[s].classes for s in splits)


def test_letters_that_are_drawn_alike_are_left_out_and_single_images_where_they_alone_are() -> None:
    def images(letters: dict[str, list[int]]) -> ImageSet:
        pixels = [value for values in letters.values() for value in values]
        labels = [label for label, values in enumerate(letters.values()) for _ in values]
        return ImageSet(torch.tensor(pixels, dtype=torch.uint8)[:, None, None, None], torch.tensor(labels), tuple(letters))

    kept = _without_duplicates(
        {
            "train": images({"a": [1, 2, 3, 3]}),
            "val": images({"half": [1, 2, 11, 12], "one": [3, 13, 14, 15]}),
            "test": images({"of val": [14, 21, 22], "own": [31, 31, 32], "twin": [31, 32, 41], "of the left out": [11, 12, 51], "whole": [1, 2]}),
        }
    )
    by_class = {split: {name: images.x[images.y == i].flatten().tolist() for i, name in enumerate(images.classes)} for split, images in kept.items()}
    assert by_class == {
        "train": {"a": [1, 2, 3, 3]},
        "val": {"one": [13, 14, 15]},
        "test": {"of val": [21, 22], "own": [31, 31, 32], "of the left out": [11, 12, 51]},
    }


def test_settings_take_effect() -> None:
    few = Glyphs(train=["cyrillic"], test=["georgian"], val_script="cyrillic", faces=["DejaVuSans", "DejaVuSerif"], min_faces=2, image_size=20).load()
    assert few["train"].x.shape[1:] == (1, 20, 20)
    assert set(torch.bincount(few["train"].y).tolist()) == {2}
    assert set(unicodedata.name(c).split()[0] for c in few["train"].classes + few["val"].classes) == {"CYRILLIC"}
    other = Glyphs(split_seed=1).load()
    assert other["val"].classes != Glyphs().load()["val"].classes
    assert abs(len(other["val"].classes) - len(Glyphs().load()["val"].classes)) < 5  # as many are drawn, not as many look like others


def test_the_second_load_draws_nothing(splits, monkeypatch) -> None:
    def refuse(*arguments):
        raise AssertionError("drawn again")

    Glyphs().load()
    monkeypatch.setattr(glyphs, "_render", refuse)
    again = Glyphs().load()
    assert all(torch.equal(again[s].x, splits[s].x) and torch.equal(again[s].y, splits[s].y) for s in splits)
    with pytest.raises(AssertionError, match="drawn again"):
        Glyphs(image_size=27).load()


def test_unknown_script_and_face_are_named() -> None:
    with pytest.raises(DataError, match="no letter of script 'greeek'.*did you mean 'greek'"):
        Glyphs(test=["greeek"]).load()
    with pytest.raises(DataError, match="there is no typeface 'DejaVuSanz'.*did you mean 'DejaVuSans'"):
        Glyphs(faces=["DejaVuSanz"], min_faces=1).load()
    with pytest.raises(ValueError, match="train and test must not share a script, got latin in both"):
        Glyphs(train=["latin"], test=["latin"])


def test_wide_letters_are_shrunk_not_cut() -> None:
    image = _draw(ImageFont.truetype(str(_face_paths(["DejaVuSans-Bold"])[0]), 60), "\u0429", 28)
    assert image.shape == (28, 28)
    assert np.asarray(image).max() > 100


@pytest.mark.parametrize("scripts", [("latin", "latin"), ("Latin", "latin")])
def test_a_script_may_not_be_learned_from_and_tested_on(scripts) -> None:
    with pytest.raises(ValueError, match="train and test must not share a script"):
        Glyphs(train=[scripts[0]], test=[scripts[1]]).load()


def test_more_faces_than_there_are_is_refused_and_letters_that_no_face_shares_are_an_error(monkeypatch) -> None:
    with pytest.raises(ValueError, match="min_faces must be at most the number of faces, 16, got 37; lower it or name more faces"):
        Glyphs(min_faces=37)
    with pytest.raises(ValueError, match="the number of faces, 1, got 2"):
        Glyphs(faces=["DejaVuSans"], min_faces=2)
    assert len(FACES) == 16
    monkeypatch.setattr(glyphs, "_is_letter", lambda character: False)
    with pytest.raises(DataError, match=r"dataset\.min_faces: no letter is in 2 of these 2 faces; lower it or name other faces"):
        Glyphs(faces=["cmsy10", "cmex10"], min_faces=2, image_size=17).load()
