"""Atomic writes, and a lock that is released when its process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from metaflowkit.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".partial"
VERIFY_VARIABLE = "METAFLOWKIT_VERIFY"  # set where the content of files is to be read, to see whether they have changed


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, whatever happens meanwhile.

    The content is written to a file of a unique name in the same folder and renamed, so that several processes may write one path: the last one wins.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file is whole and no part of the new is left.
    """
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({reason(error)}); {remedy(error)}, earlier files are whole") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """The system's text for an error."""
    return error.strerror or str(error) or type(error).__name__


def remedy(error: OSError) -> str:
    """What to do about a write that failed."""
    return "free space or choose another place" if error.errno in FULL else "see that the folder is there and may be written, or choose another place"


def remove_partials(folder: Path) -> None:
    """Remove the partial files in a folder whose processes on this machine were killed."""
    host = socket.gethostname()
    for path in folder.glob(f".*{PARTIAL}"):
        stem, _, token = path.name.removesuffix(PARTIAL).rpartition(".")
        stem, _, process = stem.rpartition(".")
        if token and stem.endswith(f".{host}") and process.isdigit() and not _alive(int(process)):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # a process of another user
        pass
    return True


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """While this context is open, nobody else opens it on the same path.

    The system keeps the lock (flock) and drops it with the process, however that ends, so that a crash leaves nothing to be removed.
    Where the file system or the platform has no such locks (some network file systems, Windows) nothing is locked; between machines
    that share a folder it holds only where the file system carries locks across (NFS 4, Linux clients from NFS 3 on).

    Args:
        path: the lock's file; its folder must exist.
        refusal: the message for another process; the one that holds the lock is appended.

    Raises:
        RunError: another process holds it, or the file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                handle = stack.enter_context(open(path, "a+"))
            except OSError as error:
                raise RunError(f"{path}: cannot be written ({reason(error)}); {remedy(error)}") from None
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise RunError(f"{refusal} (held by {handle.read(200).strip() or 'another process'})") from None
            except OSError:  # a file system without locks
                pass
            if _same(path, handle):
                break  # and not a file that its last holder removed meanwhile
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        try:
            yield
        finally:
            if _same(path, handle):
                path.unlink(missing_ok=True)


def _same(path: Path, handle: IO[str]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False
