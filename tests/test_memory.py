"""Peak memory is that of what ran since the reset."""

from __future__ import annotations

import sys

import pytest
import torch

from metaflowkit.memory import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak")
def test_peak_memory_sees_what_is_used_again() -> None:
    blocks = [torch.ones(2**18) for _ in range(64)]  # 1 MiB each, kept by the allocator when they are freed
    last = torch.ones(2**18)
    del blocks
    before = peak_memory(reset=True)
    held = [torch.ones(2**18) for _ in range(64)]
    assert 60 < (peak_memory() - before) / 2**20 < 80
    del held, last
