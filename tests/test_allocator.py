"""The memory of freed tensors is used again; page faults, which the system counts, show it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import random, resource, sys
import torch
from metaflowkit.allocator import reuse_freed_memory

if sys.argv[1] == "reuse":
    reuse_freed_memory()
draw, held, filled, pages = random.Random(0), [], 0, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(150):
    if len(held) > 3:
        held.pop(draw.randrange(len(held)))
    held.append(torch.ones(draw.choice([2**24, 2**23 + 5, 2**20, 1000])))
    filled += held[-1].nbytes
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages) * resource.getpagesize() / filled)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
@pytest.mark.parametrize(("choice", "environment", "reused"), [
    ("reuse", {}, True),
    ("reuse", {"MALLOC_ARENA_MAX": "2"}, False),
    ("leave", {}, False),
])  # fmt: skip
def test_large_tensors_take_the_memory_of_freed_ones(choice, environment, reused) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "LD_PRELOAD") and not name.startswith("MALLOC_")}
    result = subprocess.run([sys.executable, "-c", PROGRAM, choice], env={**inherited, **environment}, capture_output=True, text=True, check=True)
    share = float(result.stdout)  # of the memory filled, how much the system had to give
    assert share < 0.2 if reused else share > 0.7
