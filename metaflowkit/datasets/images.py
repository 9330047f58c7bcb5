"""Decoding image files, once, into one uint8 tensor."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from metaflowkit.datasets.cache import cached
from metaflowkit.datasets.source import Source, shown
from metaflowkit.errors import DataError
from metaflowkit.memory import require_memory
from metaflowkit.stages import stage

Mode = Literal["grey", "color"]
Background = Literal["white", "black"]
NAMED = 20  # unreadable files that a message names
SIXTEEN_BITS = 65535


@dataclass(frozen=True)
class Decoding:
    """How image files become arrays.

    Attributes:
        size: side S of the square result in pixels; other shapes are resized (area filter) after a central square crop.
        mode: ``grey`` (C = 1) or ``color`` (C = 3).
        invert: swap black and white, for ink on paper.
        alpha: background of transparent pixels.
    """

    size: int
    mode: Mode
    invert: bool = False
    alpha: Background = "white"


@dataclass(frozen=True)
class Images:
    """What was decoded of a source.

    Attributes:
        x: uint8 [n, C, S, S].
        rows: which of the source's names these n images are.
        failures: a line for every file that was left out.
    """

    x: Tensor
    rows: list[int]
    failures: tuple[str, ...]


def read_images(source: Source, decoding: Decoding, unreadable: Literal["error", "skip"] = "error", advice: str = "", verify: bool = False) -> Images:
    """The images of a source, decoded or from the cache.

    Args:
        source: the files.
        decoding: see :class:`Decoding`.
        unreadable: refuse files that cannot be decoded, or leave them out.
        advice: what else can be done about them, for the message.
        verify: see :meth:`Source.fingerprint`.

    Raises:
        DataError: naming the files that cannot be decoded, or saying that no file can.
    """
    key = {"files": source.fingerprint(verify), **vars(decoding)}

    def make() -> tuple[Tensor, Tensor, list[str]]:
        images, rows, failures = decode(source, decoding)
        if failures and unreadable == "error":
            raise _refusal(source, failures, advice)
        return images, rows, failures

    x, rows, failures = cached(key, make, f"{shown(str(source.root))}, {decoding.size}x{decoding.size} {decoding.mode}")
    if failures and (unreadable == "error" or not len(x)):
        raise _refusal(source, failures, advice)
    return Images(x, rows.tolist(), tuple(failures))


def listed_failures(failures: Sequence[str]) -> list[str]:
    """The first failures, a line each, and how many more there are."""
    more = [f"and {len(failures) - NAMED} more"] if len(failures) > NAMED else []
    return [*failures[:NAMED], *more]


def _refusal(source: Source, failures: list[str], advice: str) -> DataError:
    return DataError(f"{source.root}: {len(failures)} of {len(source.names)} images cannot be read; mend or remove them{advice}", listed_failures(failures))


def decode(source: Source, decoding: Decoding) -> tuple[Tensor, Tensor, list[str]]:
    """Decode every image of a source.

    Returns:
        uint8 [n, C, S, S]; the position in ``source.names`` of each; a line for every file that cannot be decoded.
    """
    count, channels = len(source.names), 1 if decoding.mode == "grey" else 3
    require_memory(
        count * channels * decoding.size**2, f"{source.root}: {count:,} images of {decoding.size}x{decoding.size} pixels", "lower dataset.image_size"
    )
    x = np.empty((count, channels, decoding.size, decoding.size), dtype=np.uint8)
    with (
        source.opened() as read,
        warnings.catch_warnings(),
        ThreadPoolExecutor() as pool,
        stage(f"reading {count:,} images of {source.root}", count) as advance,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # for large photographs; beyond them Pillow raises an error

        def decode_one(i: int) -> str | None:
            try:
                with open_image(read(source.names[i])) as image:
                    x[i] = to_array(image, decoding)
            except (OSError, ValueError, zlib.error, RuntimeError, zipfile.BadZipFile) as error:
                return f"{shown(source.names[i])}: {error}"
            finally:
                advance()
            return None

        failures = list(pool.map(decode_one, range(count)))
    rows = torch.tensor([i for i, failure in enumerate(failures) if failure is None], dtype=torch.int64)
    images = torch.from_numpy(x)
    return images if len(rows) == count else images[rows], rows, [failure for failure in failures if failure is not None]


def open_image(content: bytes) -> Image.Image:
    """The first frame of an image file, its pixels read and turned as its EXIF orientation says.

    Raises:
        ValueError: it cannot be decoded; Pillow itself raises errors of many kinds for damaged files.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise ValueError("is no image in a known format") from None
    except Exception as error:
        raise ValueError(f"is damaged ({error})") from None


def to_array(image: Image.Image, decoding: Decoding) -> np.ndarray:
    """One PIL image as uint8 [C, S, S].

    Floats are read as 0..1, 16 bits as 0..65535; transparent pixels show ``decoding.alpha``.

    Raises:
        ValueError: floats outside 0..1, whole numbers outside 16 bits, or a drawing that its background hides.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = _composed(image.convert("RGBA"), decoding.alpha)
    image = image.convert("L" if decoding.mode == "grey" else "RGB")
    if decoding.invert:
        image = ImageOps.invert(image)
    size = (decoding.size, decoding.size)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BOX if min(image.size) >= decoding.size else Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Floats of 0..1, or whole numbers of 16 bits, as uint8: times 255, or divided by 257."""
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # neither holds for NaN
            raise ValueError(f"holds floats from {low:g} to {high:g}; scale them to 0..1")
        return np.asarray(np.rint(pixels * 255), dtype=np.uint8)
    if low < 0 or high > SIXTEEN_BITS:
        raise ValueError(f"holds whole numbers from {low} to {high}; scale them to 0..{SIXTEEN_BITS}")
    return np.asarray(np.rint(pixels / 257), dtype=np.uint8)


def _composed(image: Image.Image, background: Background) -> Image.Image:
    """An RGBA image on a background."""

    def over(color: str) -> Image.Image:
        below = Image.new("RGBA", image.size, color)
        below.alpha_composite(image)
        return below.convert("RGB")

    def uniform(result: Image.Image) -> bool:
        return all(low == high for low, high in result.getextrema())  # type: ignore[misc]

    result, other = over(background), "black" if background == "white" else "white"
    if uniform(result) and not uniform(over(other)):
        raise ValueError(f"shows nothing on a {background} ground behind its transparent pixels; it needs a {other} one")
    return result
