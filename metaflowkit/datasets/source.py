"""The image files under a folder or inside a zip: their names, whether they have changed, and their content."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock

from metaflowkit.errors import DataError
from metaflowkit.stages import stage

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FOREIGN = ("__MACOSX", "@eaDir")  # folders in which macOS and network drives keep previews and attributes
LARGEST = 1 << 30  # bytes of one image file; a larger one is damage or malice
UNREADABLE = (OSError, zlib.error, RuntimeError, zipfile.BadZipFile)  # what reading a file of a source raises
ENCRYPTED = 0x1  # bit of a zip entry's flags


@dataclass(frozen=True)
class Source:
    """The image files under a folder or inside a zip.

    Attributes:
        root: the folder or the zip file.
        names: paths of the images inside it, with ``/``, sorted.
        stamps: a text for each name that changes with the file, without reading it.
    """

    root: Path
    names: tuple[str, ...]
    stamps: tuple[str, ...]

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], bytes]]:
        """A function from a name to the file's content; several threads may call it.

        It raises OSError, ``zlib.error``, ``RuntimeError`` or ``zipfile.BadZipFile`` where the file cannot be read.
        """
        if self.root.is_dir():
            yield self._from_folder
            return
        with zipfile.ZipFile(self.root) as archive:
            members, lock = _members(archive), Lock()

            def from_zip(name: str) -> bytes:
                _limit(members[name].file_size)
                with lock:  # from Python 3.12 on threads that open members together mix up positions: https://github.com/python/cpython/issues/101911
                    return archive.read(members[name])

            yield from_zip

    def _from_folder(self, name: str) -> bytes:
        path = self.root / name
        _limit(path.stat().st_size)
        return path.read_bytes()

    def fingerprint(self) -> str:
        """SHA-256 over what identifies the files, so that a cache never outlives a change.

        Of a zip these are names, sizes and CRC-32 in its central directory; of a folder its path and the files' names, sizes and times of change, which
        no program can set back on a POSIX system. No content is read.
        """
        location = "" if self.root.is_file() else os.fspath(self.root.resolve())
        return digest([location, *(f"{name}\0{stamp}" for name, stamp in zip(self.names, self.stamps))])

    def content(self) -> str:
        """SHA-256 over the content of all files, which are read."""
        with self.opened() as read, stage(f"verifying {len(self.names):,} files of {self.root}", len(self.names)) as advance:

            def content_of(name: str) -> bytes | None:
                advance()
                try:
                    return read(name)
                except UNREADABLE:  # decoding names the file
                    return None

            return digest(content_hash(content_of(name)) for name in self.names)


def open_source(root: Path, setting: str = "dataset.root") -> Source:
    """List the images under a folder or inside a zip.

    Hidden files and folders, and those in which other systems keep previews, are left out. Links are followed, except back into a folder that holds them.

    Args:
        root: the folder or zip.
        setting: by which the user gave it, for messages.

    Raises:
        DataError: ``root`` does not exist, cannot be listed, is no zip, is encrypted, or holds no image.
    """
    if root.is_dir():
        stamps = dict(_listed(root, _is_image))
    elif root.is_file():
        try:
            with zipfile.ZipFile(root) as archive:
                members = _members(archive)
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:  # the last of a version of the format that zipfile does not know
            raise DataError(f"{root}: is neither a folder nor a whole zip file ({error}); give a folder of images or download it again") from None
        if any(member.flag_bits & ENCRYPTED for member in members.values()):
            raise DataError(f"{root}: is encrypted; unpack it with its password and give the folder")
        stamps = {name: f"{member.file_size} {member.CRC:08x}" for name, member in members.items()}
    else:
        raise DataError(f"{root}: does not exist; set {setting} to the folder or zip that holds the images")
    if not stamps:
        raise DataError(f"{root}: holds no image ({', '.join(SUFFIXES)}); set {setting} to the folder or zip that does")
    names = tuple(sorted(stamps))
    return Source(root, names, tuple(stamps[name] for name in names))


def content_hash(content: bytes | None) -> str:
    """SHA-256 of a file's content; a text of its own for one that cannot be read."""
    return "unreadable" if content is None else hashlib.sha256(content).hexdigest()


def shown(name: str) -> str:
    """A file name as text that can be printed and stored, also where its bytes are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of some lines, which may hold file names that are no UTF-8."""
    result = hashlib.sha256()
    for line in lines:
        result.update(os.fsencode(line) + b"\n")
    return result.hexdigest()


def stamp(path: Path) -> str:
    """Size and times of a file, which tell that it was changed without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        return str(error.errno)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def tree_stamps(root: Path) -> list[str]:
    """Name and stamp of every file below a folder, a line each; none where there is no folder."""
    return [f"{name}\0{text}" for name, text in _listed(root, lambda name: True)] if root.is_dir() else []


def _limit(size: int) -> None:
    """Refuse a file before it fills the memory; a zip may claim any size."""
    if size > LARGEST:
        raise OSError(f"has {size:,} bytes, more than an image file can have ({LARGEST:,})")


def _is_image(name: str) -> bool:
    pieces = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(piece in FOREIGN or piece.startswith(".") for piece in pieces)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The images of an archive by path; Windows programs write ``\\`` between folders."""
    members = {member.filename.replace("\\", "/").strip("/"): member for member in archive.infolist() if not member.is_dir()}
    return {name: member for name, member in members.items() if _is_image(name)}


def _listed(folder: Path, accepts: Callable[[str], bool], inside: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, str]]:
    """(path, stamp) of every accepted file below a folder; ``above`` are the device and inode numbers of the folders that hold it."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); make it readable or remove it") from None
    for path in paths:
        name = f"{inside}{path.name}"
        if path.name.startswith(".") or path.name in FOREIGN:
            continue
        if os.path.isdir(path):  # unlike Path.is_dir it is silent about a link into a folder that may not be entered
            yield from _listed(path, accepts, f"{name}/", above | {identity})
        elif accepts(path.name) and (os.path.isfile(path) or path.is_symlink()):  # a link that leads nowhere is named when it is read
            yield name, stamp(path)
