"""What a bug report needs: versions, machine, threads and cache."""

from __future__ import annotations

import os
import platform

import torch

from metaflowkit.datasets.cache import cache_folder
from metaflowkit.memory import machine_memory
from metaflowkit.training.versions import versions


def environment() -> dict[str, str]:
    """Names and texts, in the order in which they are printed."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        **{package: number or "not installed" for package, number in versions().items()},
        "system": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{machine_memory() / 2**30:.1f} GiB",
        "gpu": ", ".join(devices) or "none",
        "cache": str(cache_folder()),
    }
