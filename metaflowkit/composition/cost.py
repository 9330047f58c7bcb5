"""What an outer step costs: time, memory and operations, measured on a part of its tasks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from metaflowkit.composition.device import wait_for
from metaflowkit.composition.flow import Flow
from metaflowkit.memory import peak_memory
from metaflowkit.types import first_tasks, task_count

BATCH = 8  # tasks of a vmapped batch that are measured first
SHORT = 3.0  # seconds that the measurement of a whole step may take


@dataclass(frozen=True)
class StepCost:
    """The cost of an outer step.

    Attributes:
        seconds: of an outer step.
        memory: bytes beyond what is loaded.
        operations: floating-point operations of convolutions and matrix products, forward and backward.
    """

    seconds: float
    memory: float
    operations: float

    def __str__(self) -> str:
        return f"about {self.seconds:.2g} s and {self.memory / 2**20:,.0f} MiB beyond what is loaded"


def step_cost(flow: Flow) -> StepCost:
    """Measure as many tasks of the first outer step as run in parallel, or the first eight of a vmapped batch; the whole step follows in proportion, or is
    measured where that takes no longer than a few seconds.
    """
    episode, learner = flow.episode(1), flow.learner
    tasks = task_count(episode)
    count = min(BATCH if learner.engine.batches else learner.engine.workers, tasks)
    seconds, memory = _measured(functools.partial(learner.outcome, first_tasks(episode, count)), flow.device)
    if count < tasks and seconds * tasks / count < SHORT:
        count, (seconds, memory) = tasks, _measured(functools.partial(learner.outcome, episode), flow.device)
    with FlopCounterMode(display=False) as counter:
        learner.outcome(first_tasks(episode, 1))
    scale = tasks / count
    return StepCost(seconds * scale, max(memory, 0.0) * (scale if learner.engine.batches else 1), float(counter.get_total_flops()) * tasks)


def _measured(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Seconds and bytes of a computation, once it has run before."""
    before = peak_memory(reset=True, device=device)
    run()
    memory = peak_memory(device=device) - before
    started = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - started, memory
