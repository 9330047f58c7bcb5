"""Tasks in parallel in threads.

Within one task operations are small, and two threads on each gain little; a task on each thread gains nearly all: torch releases
Python's lock inside its operations and in the backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from metaflowkit.errors import ConfigError

T = TypeVar("T")


def thread_map(function: Callable[[nn.Module, int], T], model: nn.Module, tasks: int, workers: int) -> Iterator[T]:
    """``function(model, t)`` for each task t, in their order, in several threads.

    torch's own threads are divided among the workers; a single last task after full rounds runs in the calling
    thread, with all of them. A worker must not use several: OpenMP keeps a team of threads for each thread that once used several, and
    with more of them than cores everything after is slower, three times as measured.

    Args:
        function: must change nothing but the model's registered tensors by ``functional_call``.
        model: each worker calls a copy of it that has the same tensors.
        tasks: their number.
        workers: threads.

    Raises:
        ConfigError: something drew from torch's generator, which the threads share: no run would repeat.
    """
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    share = max(1, threads // workers)
    replicas: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        replicas.put(_replica(model))

    def run_task(t: int) -> T:
        if torch.get_num_threads() != share:
            torch.set_num_threads(share)
        replica = replicas.get()
        try:
            return function(replica, t)
        finally:
            replicas.put(replica)

    parallel_tasks = tasks - (tasks % workers == 1)
    futures: list[Future[T]] = []
    try:
        torch.set_num_threads(share)  # of this thread, and of matrix products everywhere
        futures = [_pool(workers).submit(run_task, t) for t in range(parallel_tasks)]
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)  # where a task has failed, no other one keeps running
        torch.set_num_threads(threads)
    if parallel_tasks < tasks:
        yield function(model, parallel_tasks)
    refuse_draws_since(generator)


DRAWING = (
    "inner.engine: random numbers are drawn in the inner loop, but by no module of torch that is known to; "
    "use such as nn.Dropout, or choose {name: vectorized, chunk: 1, workers: 1}"
)


def refuse_draws_since(generator: Tensor, message: str = DRAWING) -> None:
    """Raise a ConfigError if torch's generator is no longer in this state."""
    if not torch.equal(torch.get_rng_state(), generator):
        raise ConfigError(message)


@lru_cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "task")


def _replica(model: nn.Module) -> nn.Module:
    """Other modules, the same tensors: ``functional_call`` puts its tensors into the modules while it runs."""
    return copy.deepcopy(model, {id(x): x for x in [*model.parameters(), *model.buffers()]})
