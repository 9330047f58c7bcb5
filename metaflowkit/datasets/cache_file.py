"""The file of a cache entry: images, numbers, and at its end a header. Large images are mapped instead of read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from metaflowkit.config.files import VERIFY_VARIABLE
from metaflowkit.datasets.mapped import MappedRows

PARTIAL = ".images.partial"
TAIL = struct.Struct("<8sQI")  # the last bytes of a file: MAGIC, length and CRC-32 of the header before them
MAGIC = b"mfkcache"
NUMBER = 8  # bytes of an int64
MAPPED = 256 << 20  # bytes of images from which on they are mapped
NETWORK = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "lustre", "gpfs", "beegfs")  # beginnings of their types in /proc/mounts

Arrays = tuple[Tensor, Tensor, list[str]]
Allocate = Callable[[tuple[int, ...]], np.ndarray]


def header_of(handle: BinaryIO) -> dict[str, Any] | None:
    """The header of an entry; None where the file is damaged."""
    size = handle.seek(0, os.SEEK_END)
    if size < TAIL.size:
        return None
    handle.seek(size - TAIL.size)
    magic, length, checksum = TAIL.unpack(handle.read(TAIL.size))
    if magic != MAGIC or length > size - TAIL.size:
        return None
    handle.seek(size - TAIL.size - length)
    text = handle.read(length)
    if checksum != zlib.crc32(text):
        return None
    header = json.loads(text)
    content = int(np.prod(header["shape"])) + NUMBER * header["numbers"]
    return header if content + length + TAIL.size == size else None


def read_entry(path: Path) -> Arrays | None:
    """An entry, or None where there is none or it is damaged.

    Images of more than :data:`MAPPED` bytes are mapped from the file, which stays locked as long as they are, without a look at their checksum unless ``$METAFLOWKIT_VERIFY`` is set; on a network drive,
    where a file may vanish from under its readers, they are read like others.
    """
    try:
        with open(path, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            header = header_of(handle)
            if header is None:
                return None
            shape = tuple(header["shape"])
            size = int(np.prod(shape))
            is_mapped = size > MAPPED and not is_network(path)
            x = np.memmap(handle, np.uint8, "c", 0, shape) if is_mapped else np.fromfile(_at(handle, 0), np.uint8, size)
            y = np.fromfile(_at(handle, size), np.int64, header["numbers"])
            if (not is_mapped or os.environ.get(VERIFY_VARIABLE)) and _checksum(x, y) != header["crc"]:
                return None
    except (OSError, ValueError):
        return None
    images = torch.from_numpy(np.asarray(x).reshape(shape))
    rows = MappedRows(images, torch.arange(len(images)), f"{path.name} {header['crc']}") if is_mapped else images
    return rows, torch.from_numpy(y), header["texts"]


def write_entry(path: Path, result: Arrays, title: str) -> None:
    """Write an entry under a unique name and rename it, so that several writers of one entry each leave an intact one.

    Raises:
        OSError: it cannot be written; no part of it is left.
    """
    x, y = (np.ascontiguousarray(tensor.numpy()) for tensor in result[:2])
    with _partial(path) as handle:
        handle.write(x.data)
        _finish(handle, x, y, result[2], title)


def write_mapped(path: Path, size: int, make: Callable[[Allocate], Arrays], title: str) -> Arrays | None:
    """Write an entry whose images are made in its file and never lie in memory as a whole, and read it.

    Args:
        path: of the entry.
        size: bytes of the images at most.
        make: calls the function it is given for an array of zeros for the images, of a shape of its choice, and returns these or the first of them.
        title: what is decoded.

    Returns:
        The entry; None where it cannot be written.
    """
    try:
        with _partial(path) as handle:
            os.posix_fallocate(handle.fileno(), 0, size)  # or a full disk would end the process when a page is written
            x, y, texts = make(lambda shape: np.memmap(handle, np.uint8, "r+", 0, shape))
            array = x.numpy()
            handle.truncate(array.nbytes)
            handle.seek(0, os.SEEK_END)
            _finish(handle, array, y.numpy(), texts, title)
    except OSError:
        return None
    return read_entry(path)


def is_network(path: Path, mounts_file: Path = Path("/proc/mounts")) -> bool:
    """Whether a file lies on a drive that other machines share."""
    with contextlib.suppress(OSError):
        mounts = [line.split()[1:3] for line in mounts_file.read_text().splitlines()]
        folders = [Path("/"), *path.resolve().parents]
        kinds = {Path(folder.encode().decode("unicode_escape")): kind for folder, kind in mounts}
        return max(((len(folder.parts), kinds[folder]) for folder in folders if folder in kinds), default=(0, ""))[1].startswith(NETWORK)
    return False


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[BinaryIO]:
    """A locked file in the folder of an entry, which takes its place at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PARTIAL)
    try:
        with open(number, "r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield handle
            handle.flush()
            os.replace(partial, path)
            fcntl.flock(handle, fcntl.LOCK_UN)  # which mappings of the file would keep
    finally:
        Path(partial).unlink(missing_ok=True)


def _finish(handle: BinaryIO, x: np.ndarray, y: np.ndarray, texts: list[str], title: str) -> None:
    """Write what comes after the images."""
    text = json.dumps({"title": title, "shape": x.shape, "numbers": len(y), "crc": _checksum(x, y), "texts": texts}).encode()
    handle.write(np.ascontiguousarray(y).data)
    handle.write(text)
    handle.write(TAIL.pack(MAGIC, len(text), zlib.crc32(text)))


def _checksum(x: np.ndarray, y: np.ndarray) -> int:
    return zlib.crc32(y.data, zlib.crc32(x.data))


def _at(handle: BinaryIO, position: int) -> BinaryIO:
    handle.seek(position)
    return handle
