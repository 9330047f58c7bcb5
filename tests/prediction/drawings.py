"""Images of three classes, and the normalisations of the runs that classify them."""

from __future__ import annotations

import numpy as np

NORMS = ["batch", "per_step", "group"]
CLASSES = ("a", "b", "c")


def drawings(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 28, 28] of three classes, a noisy shape each, in turn."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(9).random((3, 7, 7)) < 0.4
    numbers = np.arange(count) % 3
    noisy = shapes[numbers] ^ (rng.random((count, 7, 7)) < 0.08)
    return np.kron(noisy, np.ones((1, 4, 4))).astype(np.uint8) * 255, np.array(CLASSES)[numbers]
