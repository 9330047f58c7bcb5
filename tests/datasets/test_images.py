"""Decoding; oracles: the arrays that were written, and block means by numpy."""

from __future__ import annotations

import itertools
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.datasets.images import Decoding, decode, read_images, to_array
from metaflowkit.datasets.source import open_source
from metaflowkit.errors import DataError
from tests.conftest import png

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
IN_COLOR, IN_GREY = Decoding(8, "color"), Decoding(8, "grey")


@pytest.fixture
def tree(tmp_path):
    for name, array in [("b/2.png", COLOR), ("a/1.png", 255 - COLOR), ("a/10.png", COLOR // 2)]:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(png(array))
    return tmp_path / "tree"


@pytest.fixture
def read(tmp_path):
    """One image, written in a form, as it is decoded."""

    numbers = itertools.count()

    def read_one(image: Image.Image | bytes, name: str, how: Decoding = IN_GREY, **options) -> np.ndarray:
        path = tmp_path / str(next(numbers)) / name
        path.parent.mkdir()
        path.write_bytes(image) if isinstance(image, bytes) else image.save(path, **options)
        return read_images(open_source(path.parent), how).x[0].numpy()

    return read_one


def zipped(tree, path, mend=lambda content: content):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*.png")):
            archive.write(file, file.relative_to(tree).as_posix())
    path.write_bytes(mend(path.read_bytes()))
    return path


def test_a_tree_and_its_zip_give_the_written_pixels_in_the_order_of_the_names(tree, tmp_path) -> None:
    expected = torch.from_numpy(np.stack([255 - COLOR, COLOR // 2, COLOR])).movedim(-1, 1)
    for root in (tree, zipped(tree, tmp_path / "tree.zip")):
        x, rows, (_, *failures) = decode(open_source(root), IN_COLOR)
        assert torch.equal(x, expected)
        assert (rows.tolist(), failures) == ([0, 1, 2], [])


def test_invert_grey_and_color() -> None:
    assert np.array_equal(to_array(Image.fromarray(GREY), IN_GREY)[0], GREY)
    assert np.array_equal(to_array(Image.fromarray(GREY), Decoding(8, "grey", invert=True))[0], 255 - GREY)
    assert np.array_equal(to_array(Image.fromarray(GREY), IN_COLOR), np.stack([GREY] * 3))
    assert np.array_equal(to_array(Image.fromarray(COLOR), Decoding(8, "color", invert=True)), (255 - COLOR).transpose(2, 0, 1))
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_array(Image.fromarray(COLOR), IN_GREY)[0] - luma).max() <= 1


def test_smaller_images_are_block_means_of_the_central_square() -> None:
    wide = np.pad(GREY, ((0, 0), (4, 4)), constant_values=255)
    means = GREY.reshape(4, 2, 4, 2).mean((1, 3))
    for array in (GREY, wide, wide.T):
        decoded = to_array(Image.fromarray(np.ascontiguousarray(array)), Decoding(4, "grey"))[0]
        assert np.abs(decoded - (means.T if array is not GREY and array.shape[0] > 8 else means)).max() <= 1


def test_larger_images_keep_their_range_and_mean() -> None:
    decoded = to_array(Image.fromarray(GREY), Decoding(32, "grey"))[0]
    assert decoded.shape == (32, 32)
    assert decoded.min() >= GREY.min()
    assert decoded.max() <= GREY.max()
    assert abs(decoded.mean() - GREY.mean()) < 3


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """A grey TIFF of 16 bits in big-endian order, which Pillow itself does not write."""
    height, width = pixels.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, pixels.size * 2)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)) for tag, kind, value in tags
    )
    data = pixels.astype(">u2").tobytes()
    return b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + struct.pack(">H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("mode", ["grey", "color"])
def test_sixteen_bit_images_are_divided_by_257(read, mode) -> None:
    deep = GREY.astype(np.uint16) * 257
    how = Decoding(8, mode)
    for name in ("deep.png", "deep.tif"):
        assert np.array_equal(read(Image.fromarray(deep), name, how)[0], GREY)
    assert np.array_equal(read(Image.fromarray(deep.astype(np.int32)), "deep.tif", how)[0], GREY)
    assert np.array_equal(read(big_endian_tiff(deep), "deep.tif", how)[0], GREY)
    assert np.array_equal(read(Image.fromarray(np.full((8, 8), 200, np.uint16)), "dark.png", how)[0], np.ones((8, 8)))  # 200 / 257, rounded


def test_floats_of_0_to_1_are_scaled_and_others_refused(read) -> None:
    assert np.array_equal(read(Image.fromarray((GREY / 255).astype(np.float32)), "float.tif")[0], GREY)
    for pixels, says in [
        (GREY.astype(np.float32), rf"float\.tif: holds floats from {GREY.min()} to {GREY.max()}; scale them to 0\.\.1"),
        (np.full((8, 8), np.nan, np.float32), "holds floats from nan to nan"),
        (np.full((8, 8), -0.5, np.float32), "holds floats from -0.5 to -0.5"),
        (np.full((8, 8), 65536, np.int32), r"holds whole numbers from 65536 to 65536; scale them to 0\.\.65535"),
        (np.full((8, 8), -1, np.int32), "holds whole numbers from -1 to -1"),
    ]:
        with pytest.raises(DataError, match=says):
            read(Image.fromarray(pixels), "float.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_photograph_is_applied(read, orientation) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4, :4] = 250  # a bright corner at the upper left
    upright[:4, 4:] = 120
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read(Image.fromarray(np.ascontiguousarray(stored)), "photo.png", IN_COLOR, exif=exif)
    assert np.array_equal(decoded, upright.transpose(2, 0, 1))


def transparent(ink: int) -> Image.Image:
    """A stroke of ink on a transparent sheet whose hidden pixels are black."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:4] = (ink, ink, ink, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_the_ground(read, form) -> None:
    stroke = transparent(0).quantize() if form == "P" else transparent(0).convert(form)
    assert stroke.mode == form
    on_white = np.where(np.arange(8)[:, None] // 2 == 1, 0, 255) * np.ones((1, 8))
    for how in (IN_GREY, IN_COLOR):
        assert np.array_equal(read(stroke, "ink.png", how)[0], on_white)
    white = transparent(255)
    assert np.array_equal(read(white, "chalk.png", Decoding(8, "grey", alpha="black"))[0], 255 - on_white)


def test_a_drawing_that_its_ground_hides_is_refused_and_a_blank_is_not(read) -> None:
    with pytest.raises(DataError, match=r"chalk\.png: shows nothing on a white ground behind its transparent pixels; it needs a black one"):
        read(transparent(255), "chalk.png")
    with pytest.raises(ValueError, match="shows nothing on a black ground .* it needs a white one"):
        to_array(transparent(0), Decoding(8, "grey", alpha="black"))
    blank = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    assert (to_array(blank, IN_GREY) == 255).all()


def test_a_single_transparent_colour_of_a_png_shows_the_ground(read) -> None:
    array = np.where(np.arange(8)[:, None] < 4, 40, 90).astype(np.uint8) * np.ones((1, 8), np.uint8)
    decoded = read(Image.fromarray(array), "key.png", transparency=40)
    assert np.array_equal(decoded[0], np.where(array == 40, 255, 90))


def test_cmyk_is_converted(read) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan alone
    for name in ("print.jpg", "print.tif"):
        decoded = read(Image.fromarray(ink, "CMYK"), name, IN_COLOR)
        assert np.abs(decoded.astype(int) - np.array([0, 255, 255])[:, None, None]).max() <= 3


@pytest.mark.parametrize("name", ["frames.gif", "frames.tif"])
def test_of_several_frames_the_first_is_read(read, name) -> None:
    frames = [Image.fromarray(np.full((8, 8), tone, np.uint8)) for tone in (50, 150, 250)]
    assert (read(frames[0], name, save_all=True, append_images=frames[1:]) == 50).all()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no image at all", lambda b: b[:8] + bytes(len(b) - 8)])
def test_a_damaged_image_is_named(tree, damage) -> None:
    path = tree / "a" / "10.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataError, match=r"tree: 1 of 3 images cannot be read; mend or remove them\n  a/10\.png: is (damaged \(.*\)|no image in a known format)$"
    ):
        read_images(open_source(tree), IN_COLOR)


def test_all_damaged_images_are_named_at_once_and_may_be_left_out(tree) -> None:
    for i in range(30):
        (tree / "a" / f"bad{i:02d}.png").write_bytes(b"none")
    source = open_source(tree)
    with pytest.raises(DataError) as caught:
        read_images(source, IN_COLOR, advice=", or wait")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tree}: 30 of 33 images cannot be read; mend or remove them, or wait"
    assert lines[1:] == [*(f"  a/bad{i:02d}.png: is no image in a known format" for i in range(20)), "  and 10 more"]
    for _ in range(2):  # decoded, then from the cache
        images = read_images(source, IN_COLOR, unreadable="skip")
        assert [source.names[i] for i in images.rows] == ["a/1.png", "a/10.png", "b/2.png"]
        assert torch.equal(images.x, torch.from_numpy(np.stack([255 - COLOR, COLOR // 2, COLOR])).movedim(-1, 1))
        assert len(images.failures) == 30
    with pytest.raises(DataError, match="30 of 33 images cannot be read"):  # the entry of the cache excuses nothing
        read_images(source, IN_COLOR)


def test_where_no_image_can_be_read_there_is_nothing_to_leave_out(tmp_path) -> None:
    (tmp_path / "1.png").write_bytes(b"none")
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 1 images cannot be read"):
            read_images(open_source(tmp_path), IN_COLOR, unreadable="skip")


def test_a_damaged_member_of_a_zip_is_named(tree, tmp_path) -> None:
    def flip(content: bytes) -> bytes:
        place = content.index(b"IDAT") + 12
        return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]

    path = zipped(tree, tmp_path / "bad.zip", flip)
    with pytest.raises(DataError, match=r"bad\.zip: 1 of 3 images cannot be read; .*\n  a/1\.png: Bad CRC-32"):
        read_images(open_source(path), IN_COLOR)


def test_images_of_absurd_size_are_named_and_large_photographs_are_read_without_a_warning(tree, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_images(open_source(tree), IN_COLOR).x) == 3  # 64 pixels, more than the bound and less than twice
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    (tree / "a" / "1.png").touch()
    with pytest.raises(DataError, match=r"3 of 3 images cannot be read.*\n  a/1\.png: is damaged \(Image size \(64 pixels\) exceeds limit of 40 pixels"):
        read_images(open_source(tree), IN_COLOR)


def test_a_zip_entry_that_unpacks_to_more_than_an_image_is_not_unpacked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("metaflowkit.datasets.source.LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(10_000_000))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(DataError, match=r"a/1\.png: has 10,000,000 bytes, more than an image file can have \(1,000\)"):
        read_images(open_source(tmp_path / "bomb.zip"), IN_COLOR)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "1.png").write_bytes(bytes(1001))
    with pytest.raises(DataError, match=r"1\.png: has 1,001 bytes"):
        read_images(open_source(tmp_path / "tree"), IN_COLOR)
