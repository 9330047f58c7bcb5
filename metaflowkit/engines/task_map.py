"""Tasks in parallel, in threads or in processes: whichever is faster for these tasks on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from torch import nn

from metaflowkit.engines.process_map import can_fork, process_map
from metaflowkit.engines.thread_map import thread_map

Map = Callable[[Callable[[nn.Module, int], Any], nn.Module, int, int], Iterator[Any]]

TRIALS = 3  # measured calls of each map


class TaskMap:
    """Maps tasks over the cores of a CPU, and measures in its first calls which way is faster.

    Threads wait for each other where Python itself is busy, as with many small operations; a process pays for being forked and
    to return its results. Which weighs more depends on network, images and machine. Both give bit-identical results, so
    that the choice, which depends on timings, changes nothing but speed.
    """

    def __init__(self) -> None:
        self._best: dict[Hashable, dict[Map, tuple[int, float]]] = {}

    def __call__(self, function: Callable[[nn.Module, int], Any], model: nn.Module, tasks: int, workers: int, kind: Hashable) -> Iterator[Any]:
        """``function(model, t)`` for each task t, in their order.

        Args:
            function, model, tasks, workers: see :func:`metaflowkit.engines.process_map.process_map`.
            kind: equal for calls that take equally long.
        """
        best = self._best.setdefault(kind, dict.fromkeys((thread_map, process_map) if can_fork(workers) else (thread_map,), (0, 0.0)))
        fastest = min(best, key=best.__getitem__)
        start = time.perf_counter()
        yield from fastest(function, model, tasks, workers)
        seconds, (calls, least) = time.perf_counter() - start, best[fastest]
        best[fastest] = min(calls + 1, TRIALS), min(least, seconds) if calls else seconds
