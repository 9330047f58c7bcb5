"""Writes that are whole or not at all, and a lock that ends with its process."""

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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, whatever happens meanwhile.

    The content goes to a file of its own name in the same folder first, so that several processes may write one path: the last one stays.

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
    """What the system says of an error."""
    return error.strerror or str(error) or type(error).__name__


def remedy(error: OSError) -> str:
    """What to do about a write that failed."""
    return "free space or choose another place" if error.errno in FULL else "see that the folder is there and may be written, or choose another place"


def remove_partials(folder: Path) -> None:
    """Remove what writes of this machine left in a folder when their process was killed."""
    host = socket.gethostname()
    for path in folder.glob(f".*{PARTIAL}"):
        before, _, token = path.name.removesuffix(PARTIAL).rpartition(".")
        before, _, process = before.rpartition(".")
        if token and before.endswith(f".{host}") and process.isdigit() and not _alive(int(process)):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        pass
    return True


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """While this context is open, nobody else opens it on the same path.

    The system keeps the lock (flock) and drops it with the process, however that ends, so that a crash leaves nothing to be removed.
    Where the file system or the platform has no such locks (some network file systems, Windows) nothing is kept out; between machines
    that share a folder it holds only where the file system carries locks across (NFS 4, Linux clients from NFS 3 on).

    Args:
        path: the lock's file; its folder must exist.
        refusal: what another one is told; the process that holds it is named after it.

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
