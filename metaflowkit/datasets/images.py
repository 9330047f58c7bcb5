"""Decoding image files, once, into one uint8 tensor."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from metaflowkit.config.files import VERIFY_VARIABLE
from metaflowkit.datasets.cache import SIZE_VARIABLE, cached_images
from metaflowkit.datasets.cache_file import Allocate, Arrays
from metaflowkit.datasets.source import UNREADABLE, Source, content_hash, digest, shown
from metaflowkit.errors import DataError
from metaflowkit.memory import require_memory
from metaflowkit.stages import stage

Mode = Literal["grey", "color"]
Background = Literal["white", "black"]
NAMED = 20  # unreadable files that a message names
SIXTEEN_BITS = 65535
CHUNK = 64 << 20  # bytes of images that are decoded before those of a file are written to it


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

    @property
    def channels(self) -> int:
        """C."""
        return 1 if self.mode == "grey" else 3


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
        verify: read all files and decode them again where their content is not that of the cache, whatever their sizes and times say; so does
            ``$METAFLOWKIT_VERIFY``.

    Raises:
        DataError: naming the files that cannot be decoded, or saying that no file can.
    """
    key = {"files": source.fingerprint(), **vars(decoding)}

    def make(allocate: Allocate | None) -> Arrays:
        images, rows, (content, *failures) = decode(source, decoding, allocate)
        if failures and unreadable == "error":
            raise _refusal(source, failures, advice)
        return images, rows, [content, *failures]

    def holds(content: str, *failures: str) -> bool:
        return not (verify or os.environ.get(VERIFY_VARIABLE)) or content == source.content()

    title = f"{shown(str(source.root))}, {decoding.size}x{decoding.size} {decoding.mode}"
    x, rows, (_, *failures) = cached_images(key, make, title, len(source.names) * decoding.channels * decoding.size**2, holds)
    if failures and (unreadable == "error" or not len(x)):
        raise _refusal(source, failures, advice)
    return Images(x, rows.tolist(), tuple(failures))


def listed_failures(failures: Sequence[str]) -> list[str]:
    """The first failures, a line each, and how many more there are."""
    more = [f"and {len(failures) - NAMED} more"] if len(failures) > NAMED else []
    return [*failures[:NAMED], *more]


def _refusal(source: Source, failures: list[str], advice: str) -> DataError:
    return DataError(f"{source.root}: {len(failures)} of {len(source.names)} images cannot be read; mend or remove them{advice}", listed_failures(failures))


def decode(source: Source, decoding: Decoding, allocate: Allocate | None = None) -> Arrays:
    """Decode every image of a source.

    Args:
        source: the files.
        decoding: see :class:`Decoding`.
        allocate: gives the array for the images, of a shape; None for one in memory.

    Returns:
        uint8 [n, C, S, S]; the position in ``source.names`` of each; :meth:`Source.content`, and a line for every file that cannot be decoded.
    """
    count = len(source.names)
    x = room_for(count, decoding, source.root, allocate)
    with (
        source.opened() as read,
        warnings.catch_warnings(),
        ThreadPoolExecutor() as pool,
        stage(f"reading {count:,} images of {source.root}", count) as advance,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # for large photographs; beyond them Pillow raises an error

        def decode_one(i: int) -> tuple[str, str | None]:
            content = None
            try:
                content = read(source.names[i])
                with open_image(content) as image:
                    x[i] = to_array(image, decoding)
            except (ValueError, *UNREADABLE) as error:
                return content_hash(content), f"{shown(source.names[i])}: {error}"
            finally:
                advance()
            return content_hash(content), None

        decoded: list[tuple[str, str | None]] = []
        for part in chunks(x):
            decoded += pool.map(decode_one, part)
    rows = torch.tensor([i for i, (_, failure) in enumerate(decoded) if failure is None], dtype=torch.int64)
    if len(rows) < count:
        for to, row in enumerate(rows.tolist()):
            if to != row:
                x[to] = x[row]
    content, failures = digest(hash for hash, _ in decoded), [failure for _, failure in decoded if failure is not None]
    return torch.from_numpy(np.asarray(x[: len(rows)])), rows, [content, *failures]


def room_for(count: int, decoding: Decoding, root: Path, allocate: Allocate | None = None) -> np.ndarray:
    """An array uint8 [n, C, S, S] for so many images of a root; ``allocate`` as in :func:`decode`.

    Raises:
        DataError: there is less memory.
    """
    shape = (count, decoding.channels, decoding.size, decoding.size)
    if allocate is not None:
        return allocate(shape)
    what = f"{root}: {count:,} images of {decoding.size}x{decoding.size} pixels"
    require_memory(math.prod(shape), what, f"lower dataset.image_size, or raise {SIZE_VARIABLE}, so that they lie on disk")
    return np.empty(shape, dtype=np.uint8)


def chunks(x: np.ndarray) -> Iterator[range]:
    """The rows of an array in parts, each of which is written to the array's file, where it has one, before the next one is made."""
    size = max(1, CHUNK // math.prod(x.shape[1:]))
    for start in range(0, len(x), size):
        yield range(start, min(start + size, len(x)))
        if isinstance(x, np.memmap):
            x.flush()  # what is not on disk yet cannot leave the memory


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
