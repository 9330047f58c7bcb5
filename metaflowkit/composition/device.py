"""Where a pipeline computes."""

from __future__ import annotations

import socket

import torch

from metaflowkit.config.types import Pipeline
from metaflowkit.distributed.world import ALONE, World
from metaflowkit.errors import ConfigError


def chosen_device(pipeline: Pipeline, world: World = ALONE) -> torch.device:
    """The device of a pipeline; of several processes on a machine each takes a GPU of its own.

    Raises:
        ConfigError: there is no such device, or it has not the pipeline's precision.
    """
    device = _named(pipeline.device, world)
    if pipeline.precision == "tf32" and device.type == "cpu":
        raise ConfigError(f"{pipeline.place('precision')}: tf32 is a precision of GPUs, and the device is {device}; choose float32 or bf16")
    return device


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has computed all that was launched on it, as before a clock is read; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _named(name: str, world: World) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: torch sees no GPU, got {name!r}; use device=cpu or auto")
    if name == "cuda" and world.size > 1:
        if world.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"device: process {world.rank} is number {world.local_rank} on {socket.gethostname()}, which has {torch.cuda.device_count()} GPUs; start as many processes on a "
                "machine as it has GPUs, or use device=cpu"
            )
        name = f"cuda:{world.local_rank}"
    return torch.device(name)
