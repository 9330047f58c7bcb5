"""Glyphs against the fonts themselves: what fontTools says a face holds, and what the missing-glyph box looks like."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch
from PIL import ImageFont

from metaflowkit.datasets import glyphs
from metaflowkit.datasets.glyphs import FACES, Glyphs, _draw, _face_paths
from metaflowkit.errors import DataError


@pytest.fixture
def splits():
    return Glyphs().load()


def test_letters_images_and_scripts_are_those_of_the_fonts(splits) -> None:
    assert sum(len(s.classes) for s in splits.values()) == 1390
    assert sum(len(s.x) for s in splits.values()) == 18_906
    assert len(splits["test"].classes) == 440
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
    for images in splits.values():
        counts = torch.bincount(images.y).tolist()
        assert counts == [sum(ord(letter) in known for known in maps) for letter in images.classes]
        assert min(counts) >= 10


def test_settings_take_effect() -> None:
    few = Glyphs(train=["cyrillic"], test=["georgian"], val_script="cyrillic", faces=["DejaVuSans", "DejaVuSerif"], min_faces=2, image_size=20).load()
    assert few["train"].x.shape[1:] == (1, 20, 20)
    assert set(torch.bincount(few["train"].y).tolist()) == {2}
    assert set(unicodedata.name(c).split()[0] for c in few["train"].classes + few["val"].classes) == {"CYRILLIC"}
    other = Glyphs(split_seed=1).load()
    assert other["val"].classes != Glyphs().load()["val"].classes
    assert len(other["val"].classes) == len(Glyphs().load()["val"].classes)


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
