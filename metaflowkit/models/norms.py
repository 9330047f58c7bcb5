"""Normalisation layers that are safe inside a differentiated inner loop."""

from __future__ import annotations

import math

from torch import nn


def build_norm(norm: str, channels: int) -> nn.Module:
    """A normalisation layer.

    Args:
        norm: ``batch`` uses the statistics of the current set, in training and evaluation alike (the transductive
            protocol of few-shot learning), and keeps no running ones; ``group`` treats each image alone.
        channels: number of channels.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    return nn.GroupNorm(math.gcd(8, channels), channels)
