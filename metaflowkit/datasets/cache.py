"""The disk cache of decoded images, keyed by content and settings."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaflowkit.errors import RunError
from metaflowkit.files import write_atomic

FORMAT = 2


def cache_folder() -> Path:
    """``$METAFLOWKIT_CACHE``, else ``metaflowkit`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    named = os.environ.get("METAFLOWKIT_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metaflowkit"


def cached(key: dict[str, Any], make: Callable[[], tuple[Tensor, Tensor, list[str]]]) -> tuple[Tensor, Tensor, list[str]]:
    """What ``make`` returns, from the cache where it is there and whole.

    An entry is a SHA-256 and the tensors it was made of: a damaged one is made again, and a cache that cannot be written is done without.

    Args:
        key: fingerprint of the content and every setting that shapes the result, as JSON values.
        make: decodes: images uint8 [n, C, H, W], class index int64 [n], class names.
    """
    name = hashlib.sha256(json.dumps([FORMAT, key], sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / f"{name}.pt"
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        checksum, payload = content[:32], content[32:]
        if hashlib.sha256(payload).digest() == checksum:
            stored = torch.load(io.BytesIO(payload), weights_only=True)
            return stored["x"], stored["y"], stored["classes"]
    x, y, classes = make()
    buffer = io.BytesIO()
    torch.save({"x": x, "y": y, "classes": classes}, buffer)
    payload = buffer.getvalue()
    with contextlib.suppress(RunError):
        write_atomic(path, hashlib.sha256(payload).digest() + payload)
    return x, y, classes
