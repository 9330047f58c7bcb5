"""The memory of a machine, and the peak memory of a computation."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

from metaflowkit.errors import DataError


def peak_memory(reset: bool = False, device: torch.device | None = None) -> float:
    """The peak memory in bytes: on a GPU of tensors, else of the process.

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
                ctypes.CDLL(None).malloc_trim(0)  # memory that was freed and kept would be reused and not be counted
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def machine_memory(device: torch.device | None = None) -> float:
    """Bytes of memory that a GPU, or else this machine, has."""
    if device is not None and device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else float("inf")


def require_memory(needed: float, what: str, remedy: str, device: torch.device | None = None) -> None:
    """Refuse what cannot fit, before it is tried and the system ends the process.

    Args:
        needed: bytes, a lower bound.
        what: the objects that need them, after the location of their setting.
        remedy: what to do about it.
        device: where they are stored.

    Raises:
        DataError: the machine has less.
    """
    if needed > machine_memory(device):
        raise DataError(f"{what} need at least {needed / 2**30:,.0f} GiB of memory, and there are {machine_memory(device) / 2**30:,.1f}; {remedy}")


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory could not be allocated; on a CPU torch raises a plain RuntimeError."""
    messages = ("not enough memory", "can't allocate memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in messages))
