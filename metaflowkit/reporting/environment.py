"""What a bug report needs: versions, machine, threads and cache."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from metaflowkit.datasets.cache import cache_folder
from metaflowkit.memory import machine_memory

PACKAGES = ("torch", "torchvision", "higher", "kornia", "optuna", "numpy", "scipy", "scikit-learn", "pillow", "matplotlib", "click", "PyYAML")


def environment() -> dict[str, str]:
    """Names and texts, in the order in which they are printed."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        **{package: _version(package) for package in PACKAGES},
        "system": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{machine_memory() / 2**30:.1f} GiB",
        "gpu": ", ".join(devices) or "none",
        "cache": str(cache_folder()),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
