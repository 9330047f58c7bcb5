"""The memory of large blocks that were freed is used again; page faults, which the system counts, show it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, random, resource, sys
from metaflowkit.allocator import reuse_freed_memory

if sys.argv[1] == "reuse":
    reuse_freed_memory()
libc, size_t, pointer = ctypes.CDLL(None), ctypes.c_size_t, ctypes.c_void_p
block, draw, held, filled = pointer(), random.Random(0), [], 0
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    if len(held) > 3:
        libc.free(pointer(held.pop(draw.randrange(len(held)))))
    size = draw.choice([2**26, 2**25 + 20, 2**22, 4000])
    libc.posix_memalign(ctypes.byref(block), size_t(64), size_t(size))  # as torch asks for memory
    libc.memset(block, 1, size_t(size))
    held.append(block.value)
    filled += size
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages) * resource.getpagesize() / filled)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
@pytest.mark.parametrize(("choice", "environment", "reused"), [
    ("reuse", {}, True),
    ("reuse", {"MALLOC_ARENA_MAX": "2"}, False),
    ("leave", {}, False),
])  # fmt: skip
def test_large_blocks_take_the_memory_of_freed_ones(choice, environment, reused) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "LD_PRELOAD") and not name.startswith("MALLOC_")}
    result = subprocess.run([sys.executable, "-c", PROGRAM, choice], env={**inherited, **environment}, capture_output=True, text=True, check=True)
    share = float(result.stdout)  # of the memory filled, how much the system had to give
    assert share < 0.2 if reused else share > 0.7
