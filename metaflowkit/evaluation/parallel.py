"""Batches of a measurement in parallel: each by one thread of a process of its own, which gains more than several threads for each of their small operations."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from metaflowkit.engines.process_map import can_fork, process_map

T = TypeVar("T")

LEAST = 2  # batches for each process, so that forking it pays
DRAWING = (
    "evaluate: random numbers are drawn from torch's generator, by a readout or in the network's evaluation mode, so that no measurement could be repeated; "
    "draw them from a torch.Generator of your own, seeded by the tasks"
)


def in_parallel(function: Callable[[int], T], model: nn.Module, count: int, advance: Callable[[], None] = lambda: None) -> list[T]:
    """``function(i)`` for each i below ``count``, in their order: in forked processes on a CPU where that is possible, else one after the other.

    Args:
        function: gives nested tuples and dicts of CPU tensors; what it changes in Python's objects may be lost.
        model: that it calls.
        count: of its calls.
        advance: called about as often.

    Raises:
        ConfigError: it draws from torch's generator, of which every process would draw the same numbers.
    """
    workers = min(torch.get_num_threads(), count // LEAST)
    if workers < 2 or next(model.parameters()).is_cuda or not can_fork(workers):
        workers = 1
    process = os.getpid()

    def call(_model: nn.Module, i: int) -> T:
        result = function(i)
        if os.getpid() == process:
            for _ in range(workers):
                advance()
        return result

    if workers == 1:
        return [call(model, i) for i in range(count)]
    return list(process_map(call, model, count, workers, DRAWING))
