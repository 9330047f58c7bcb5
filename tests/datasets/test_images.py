"""Decoding; oracles: the arrays that were written, and block means by numpy."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.datasets.images import Source, decode, open_source, to_array
from metaflowkit.errors import DataError
from tests.conftest import png

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    for name, array in [("b/2.png", COLOR), ("a/1.png", 255 - COLOR), ("a/10.png", COLOR // 2)]:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(png(array))
    return tmp_path / "tree"


def zipped(tree, path, mend=lambda content: content):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*.png")):
            archive.write(file, file.relative_to(tree).as_posix())
    path.write_bytes(mend(path.read_bytes()))
    return path


def test_a_tree_and_its_zip_give_the_written_pixels_in_the_order_of_the_names(tree, tmp_path) -> None:
    expected = torch.from_numpy(np.stack([255 - COLOR, COLOR // 2, COLOR])).movedim(-1, 1)
    for root in (tree, zipped(tree, tmp_path / "tree.zip")):
        source = open_source(root)
        assert source.names == ("a/1.png", "a/10.png", "b/2.png")
        assert torch.equal(decode(source, 8, "color"), expected)


def test_only_images_are_listed(tree) -> None:
    (tree / "a" / "notes.txt").write_text("x")
    (tree / "a" / ".hidden.png").write_bytes(png(GREY))
    assert len(open_source(tree).names) == 3


def test_a_folder_named_like_an_image_is_no_image(tree) -> None:
    (tree / "c.png").mkdir()
    (tree / "c.png" / "3.png").write_bytes(png(COLOR))
    source = open_source(tree)
    assert source.names == ("a/1.png", "a/10.png", "b/2.png", "c.png/3.png")
    assert len(decode(source, 8, "color")) == 4


def test_a_link_to_nowhere_is_skipped_or_named(tree) -> None:
    (tree / "a" / "5.png").symlink_to(tree / "gone.png")
    try:
        source = open_source(tree)
        source.fingerprint()
        assert len(decode(source, 8, "color")) == 3
    except DataError as error:
        assert "a/5.png" in str(error)


def test_invert_grey_and_color() -> None:
    assert np.array_equal(to_array(Image.fromarray(GREY), 8, "grey")[0], GREY)
    assert np.array_equal(to_array(Image.fromarray(GREY), 8, "grey", invert=True)[0], 255 - GREY)
    assert np.array_equal(to_array(Image.fromarray(GREY), 8, "color"), np.stack([GREY] * 3))
    assert np.array_equal(to_array(Image.fromarray(COLOR), 8, "color", invert=True), (255 - COLOR).transpose(2, 0, 1))
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_array(Image.fromarray(COLOR), 8, "grey")[0] - luma).max() <= 1


def test_smaller_images_are_block_means_of_the_central_square() -> None:
    wide = np.pad(GREY, ((0, 0), (4, 4)), constant_values=255)
    means = GREY.reshape(4, 2, 4, 2).mean((1, 3))
    for array in (GREY, wide, wide.T):
        found = to_array(Image.fromarray(np.ascontiguousarray(array)), 4, "grey")[0]
        assert np.abs(found - (means.T if array is not GREY and array.shape[0] > 8 else means)).max() <= 1


def test_larger_images_keep_their_range_and_mean() -> None:
    found = to_array(Image.fromarray(GREY), 32, "grey")[0]
    assert found.shape == (32, 32)
    assert found.min() >= GREY.min()
    assert found.max() <= GREY.max()
    assert abs(found.mean() - GREY.mean()) < 3


def test_sixteen_bit_images_keep_their_tones(tmp_path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for mode in ("grey", "color"):
        assert np.array_equal(decode(Source(tmp_path, ("deep.png",)), 8, mode)[0, 0].numpy(), GREY)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no image at all", lambda b: b[:8] + bytes(len(b) - 8)])
def test_a_damaged_image_is_named(tree, damage) -> None:
    path = tree / "a" / "10.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a/10\.png: is no readable image \(.*\); mend or remove that file"):
        decode(open_source(tree), 8, "color")


def test_a_damaged_member_of_a_zip_is_named(tree, tmp_path) -> None:
    def flip(content: bytes) -> bytes:
        place = content.index(b"IDAT") + 12
        return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]

    path = zipped(tree, tmp_path / "bad.zip", flip)
    with pytest.raises(DataError, match=r"bad\.zip: a/1\.png"):
        decode(open_source(path), 8, "color")


def test_sources_that_are_none(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    for name, says in [
        ("missing", "does not exist; set dataset.root to the folder or zip that holds the images"),
        ("empty", r"holds no image \(\.png"),
        ("none.zip", r"holds no image \(\.png"),
        ("text.zip", "is neither a folder nor a whole zip file"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            open_source(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_the_fingerprint_follows_names_and_contents(tree) -> None:
    before = open_source(tree).fingerprint()
    assert open_source(tree).fingerprint() == before
    (tree / "b" / "2.png").write_bytes(png(COLOR ^ 1))
    changed = open_source(tree).fingerprint()
    (tree / "b" / "2.png").rename(tree / "b" / "3.png")
    assert len({before, changed, open_source(tree).fingerprint()}) == 3
