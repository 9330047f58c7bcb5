"""The C library's allocator, for large tensors on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def reuse_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors and give it to later ones, for the rest of the process.

    By itself it returns blocks of more than 32 MiB to the system at once, and the system clears every page when it is next asked for one: with
    activations of that size this is a quarter of a training step, and more in bfloat16. The process then holds its peak memory until it ends. Nothing is changed where the
    environment sets the allocator (``MALLOC_...``, ``GLIBC_TUNABLES``), nor in other C libraries.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
