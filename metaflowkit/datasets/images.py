"""Decoding image files from a folder tree or from zips, once, into one uint8 tensor."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metaflowkit.errors import DataError
from metaflowkit.memory import require_memory

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
Mode = Literal["grey", "color"]


@dataclass(frozen=True)
class Source:
    """The image files under a folder or inside a zip.

    Attributes:
        root: the folder or the zip file.
        names: paths of the images inside it, with ``/``, sorted.
    """

    root: Path
    names: tuple[str, ...]

    def read(self) -> Iterable[tuple[str, bytes]]:
        """(name, content) of every image in order.

        Raises:
            DataError: naming the first file that cannot be read.
        """
        with contextlib.ExitStack() as stack:
            archive = None if self.root.is_dir() else stack.enter_context(zipfile.ZipFile(self.root))
            for name in self.names:
                try:
                    content = archive.read(name) if archive else (self.root / name).read_bytes()
                except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
                    raise DataError(f"{self.root}: {name}: cannot be read ({error}); mend or remove that file") from None
                yield name, content

    def fingerprint(self) -> str:
        """SHA-256 over names and contents, so that a cache never outlives a change of the files."""
        digest = hashlib.sha256()
        if self.root.is_dir():
            for name, content in self.read():
                digest.update(f"{name}\0{len(content)}\0".encode())
                digest.update(content)
        else:
            digest.update(self.root.read_bytes())
        return digest.hexdigest()


def open_source(root: Path) -> Source:
    """List the images under a folder or inside a zip.

    Raises:
        DataError: ``root`` does not exist, is no zip, or holds no image.
    """
    if root.is_dir():
        names = [p.relative_to(root).as_posix() for p in root.rglob("*") if _is_image(p)]
    elif root.is_file():
        try:
            with zipfile.ZipFile(root) as archive:
                names = [n for n in archive.namelist() if n.lower().endswith(SUFFIXES) and "__MACOSX" not in n]
        except zipfile.BadZipFile:
            raise DataError(f"{root}: is neither a folder nor a whole zip file; give a folder of images or download it again") from None
    else:
        raise DataError(f"{root}: does not exist; set dataset.root to the folder or zip that holds the images")
    if not names:
        raise DataError(f"{root}: holds no image ({', '.join(SUFFIXES)}); set dataset.root to the folder or zip that does")
    return Source(root, tuple(sorted(names)))


def _is_image(path: Path) -> bool:
    """A file by the name of an image, or a link by one: a link that leads nowhere is named when it is read."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and (path.is_file() or path.is_symlink())


def decode(source: Source, size: int, mode: Mode, invert: bool = False) -> Tensor:
    """Decode every image of a source.

    Args:
        source: the files.
        size: side S of the square result in pixels; other shapes are resized (area filter) after a central square crop.
        mode: ``grey`` (C = 1) or ``color`` (C = 3).
        invert: swap black and white, for ink on paper.

    Returns:
        uint8 [n, C, S, S], in the order of ``source.names``.

    Raises:
        DataError: naming the first file that cannot be decoded.
    """

    def one(item: tuple[str, bytes]) -> np.ndarray:
        name, content = item
        try:
            with Image.open(io.BytesIO(content)) as image:
                return to_array(image, size, mode, invert)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{source.root}: {name}: is no readable image ({error}); mend or remove that file") from None

    count = len(source.names)
    require_memory(count * size**2 * (1 if mode == "grey" else 3), f"{source.root}: {count:,} images of {size}x{size} pixels", "lower dataset.image_size")
    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(one, source.read()))))


def to_array(image: Image.Image, size: int, mode: Mode, invert: bool = False) -> np.ndarray:
    """One PIL image as uint8 [C, size, size]; see :func:`decode`."""
    if image.mode.startswith("I;16"):  # convert() would cut sixteen bits off at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if mode == "grey" else "RGB")
    if invert:
        image = ImageOps.invert(image)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BOX if min(image.size) >= size else Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
