"""The disk cache of decoded images, keyed by content and settings, with a limit to its size."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaflowkit.datasets import cache_file
from metaflowkit.datasets.cache_file import PARTIAL, Allocate, Arrays
from metaflowkit.errors import ConfigError

FORMAT = 5
ENTRY = re.compile(r"[0-9a-f]{32}\.(images|pt)")  # .pt: of format 2
SIZE_VARIABLE = "METAFLOWKIT_CACHE_SIZE"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DEFAULT_SIZE = "10 GiB"
DAY = 24 * 3600


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache.

    Attributes:
        path: the file.
        title: what it was decoded from.
        size: bytes.
        used: when it was last read or written, in seconds since the epoch.
    """

    path: Path
    title: str
    size: int
    used: float


def cache_folder() -> Path:
    """``$METAFLOWKIT_CACHE``, else ``metaflowkit`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    folder = os.environ.get("METAFLOWKIT_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metaflowkit"


def size_limit() -> int:
    """Bytes that the cache may take: ``$METAFLOWKIT_CACHE_SIZE``, such as ``500 MiB``, else 10 GiB.

    Raises:
        ConfigError: the variable holds no size.
    """
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{SIZE_VARIABLE}: must be a size in bytes, got {text!r}; write such as 500 MiB or 10 GiB, or 0 for no cache")
    return int(float(match[1]) * UNITS[match[2].upper()])


def cached(key: dict[str, Any], make: Callable[[], Arrays], title: str) -> Arrays:
    """What ``make`` returns, read from the cache where it holds an intact copy.

    An entry carries a CRC-32 of its content: a damaged one is made again, and a cache that cannot be written is not used.

    Args:
        key: fingerprint of the content and every setting that shapes the result, as JSON values.
        make: decodes: images uint8 [n, C, H, W], an int64 number for each, such as its class, and texts, such as class names.
        title: what is decoded, for :func:`entries`.
    """
    result = lookup(key)
    if result is None:
        result = make()
        store(key, result, title)
    return result


def cached_images(
    key: dict[str, Any], make: Callable[[Allocate | None], Arrays], title: str, size: int, holds: Callable[..., bool] = lambda *_: True
) -> Arrays:
    """The same for images that may be larger than the memory: these are made in the entry's file, and mapped from it.

    Args:
        key, title: see :func:`cached`.
        make: see :func:`metaflowkit.datasets.cache_file.write_mapped`; it is given None where the images have to be made in memory.
        size: bytes of the images at most.
        holds: whether an entry with these texts is still what would be made.
    """
    result = lookup(key)
    if result is not None and not holds(*result[2]):
        result = None
    path, limit = _path(key), size_limit()
    if result is None and cache_file.MAPPED < size <= limit and not cache_file.is_network(path):
        result = cache_file.write_mapped(path, size, make, title)
        _shrink(limit, path)
    if result is None:
        result = make(None)
        store(key, result, title)
    return result


def lookup(key: dict[str, Any]) -> Arrays | None:
    """The entry of a key; None where it is missing or damaged. Its modification time is set to now, as that of its last use."""
    path = _path(key)
    result = cache_file.read_entry(path)
    if result is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
    return result


def store(key: dict[str, Any], result: Arrays, title: str) -> None:
    """Keep a result under a key where the cache can be written; see :func:`cached`."""
    limit, path = size_limit(), _path(key)
    with contextlib.suppress(OSError):
        if result[0].nbytes + result[1].nbytes <= limit:
            cache_file.write_entry(path, result, title)
        _shrink(limit, path)


def entries() -> list[CacheEntry]:
    """What the cache holds, the most recently used first."""
    cached_files = []
    for path in _files(ENTRY.fullmatch):
        with contextlib.suppress(OSError), open(path, "rb") as handle:
            status = os.fstat(handle.fileno())
            header = cache_file.header_of(handle) if path.suffix == ".images" else None
            cached_files.append(CacheEntry(path, header["title"] if header else "damaged, or of an earlier version", status.st_size, status.st_mtime))
    return sorted(cached_files, key=lambda entry: -entry.used)


def remove(path: Path) -> bool:
    """Remove an entry unless a process is reading it; whether it was removed."""
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


def _remove_partials() -> None:
    """Remove the partial files of killed writers; a file that is being written is locked and stays."""
    for path in _files(lambda name: name.endswith(PARTIAL)):
        remove(path)


def _path(key: dict[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps([FORMAT, key], sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / f"{name}.images"


def _files(accepts: Callable[[str], object]) -> list[Path]:
    try:
        return [path for path in cache_folder().iterdir() if accepts(path.name)]
    except OSError:
        return []


def _shrink(limit: int, newest: Path) -> None:
    """Remove the entries that were not used for longest until the rest takes no more than the limit."""
    _remove_partials()
    statuses = {}
    for path in _files(ENTRY.fullmatch):
        with contextlib.suppress(OSError):
            statuses[path] = path.stat()
    total = sum(status.st_size for status in statuses.values())
    for path in sorted(statuses, key=lambda path: (path == newest, statuses[path].st_mtime_ns)):
        if total <= limit:
            return
        if remove(path):
            total -= statuses[path].st_size


def chosen(name: str = "", unused: float = 0.0) -> list[CacheEntry]:
    """The entries whose short name or title holds ``name``, and that were not used for so many days."""
    return [e for e in entries() if (name in e.title or e.path.stem.startswith(name)) and time.time() - e.used >= unused * DAY]


def report(clear: bool = False, name: str = "", unused: float = 0.0) -> list[str]:
    """The lines of ``mfk cache``.

    Args:
        clear: remove the entries.
        name: only those whose short name or title holds this.
        unused: only those that were not used for so many days.
    """
    listed, lines = chosen(name, unused), []
    for entry in listed:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        line = f"{entry.path.stem[:8]}  {entry.size / UNITS['M']:8.1f} MiB  {used}  {entry.title}"
        if clear:
            line += "  removed" if remove(entry.path) else "  is being read, kept"
        lines.append(line)
    if clear and not name and not unused:
        _remove_partials()
    total = sum(entry.size for entry in listed)
    return [*lines, f"{len(listed)} entries, {total / UNITS['M']:.1f} MiB, in {cache_folder()} (limit {size_limit() / UNITS['M']:,.0f} MiB, {SIZE_VARIABLE})"]
