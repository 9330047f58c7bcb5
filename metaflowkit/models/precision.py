"""Reduced precision of a backbone: products in bfloat16, statistics in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from metaflowkit.models.batch_statistics import norm_then_pool

NORMS = (F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm, norm_then_pool)  # within the last the mode is off


class _NormsInFloat32(TorchFunctionMode):
    """Within this context normalisation reads float32, also inside torch.func's transforms, where torch's second derivatives refuse mixed types."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in NORMS and args and args[0].dtype == torch.bfloat16:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def bfloat16(device: torch.device) -> Iterator[None]:
    """Within this context convolutions and products take operands that are rounded to bfloat16, as torch's autocast does, and normalisation float32."""
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False), _NormsInFloat32():  # parameters are others at every call, so no cache
        yield
