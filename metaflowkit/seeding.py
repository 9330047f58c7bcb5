"""The only source of randomness: a generator named by (seed, purpose, index)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed that depends on all three arguments and on nothing else.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, such as ``"tasks/train"``; streams of different purposes are independent.
        index: step or episode number.

    Returns:
        The first 63 bits of SHA-256 over the three, so that neighbouring indices share no structure.

    Example:
        >>> seed_for(0, "tasks/train", 1) == seed_for(0, "tasks/train", 1)
        True
        >>> seed_for(0, "tasks/train", 1) == seed_for(0, "tasks/val", 1)
        False
    """
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A fresh CPU generator seeded with :func:`seed_for`.

    It lives on the CPU whatever the device of the run, so that a run draws the same tasks on every machine.
    """
    import torch

    return torch.Generator().manual_seed(seed_for(seed, purpose, index))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global generators draw from a seed, on the CPU and on ``device``; they are restored afterwards."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the generators of other devices, which are not restored
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
