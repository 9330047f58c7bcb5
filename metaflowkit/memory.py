"""The most memory that something took."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import torch


def peak_memory(reset: bool = False, device: torch.device | None = None) -> float:
    """The most memory in bytes that was held: on a GPU by tensors, else by the process.

    Args:
        reset: forget what was held before (on a CPU where Linux allows it).
        device: a GPU, or what computes on the CPU.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        if reset:
            with contextlib.suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would be used again, and not be seen
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
