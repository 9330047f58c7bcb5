"""Tasks in parallel in forked processes, for networks so small that threads wait for Python's lock.

A process is forked for each call, hence it starts with the tensors and modules as they are at that moment: nothing has to be sent
to it, and it holds no outdated state. Its results come back through a file in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from metaflowkit.engines.thread_map import DRAWING, refuse_draws_since

T = TypeVar("T")

LEAST_PATIENCE = 30.0  # seconds
PATIENCE = 10  # times the longest task
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def can_fork(workers: int) -> bool:
    """Whether :func:`process_map` may run here: memory files and a fork on Linux, each process one of torch's threads, and no accelerator.

    A forked process cannot use OpenMP threads that its parent has started, and torch refuses ``backward`` in it where there is a device
    (``Unable to handle autograd's threading in combination with fork-based multiprocessing``).
    """
    return sys.platform == "linux" and torch.get_num_threads() // workers <= 1 and not torch.accelerator.is_available()


def process_map(function: Callable[[nn.Module, int], T], model: nn.Module, tasks: int, workers: int, drawing: str = DRAWING) -> Iterator[T]:
    """``function(model, t)`` for each task t, in their order, in this process and forked ones.

    Every process takes the next task from one queue. A task that fails in a forked process (an error, a signal, a hang) is computed
    by this process, which raises its error. Results are bit-identical to those of :func:`metaflowkit.engines.thread_map.thread_map`.

    Args:
        function: nested tuples and dicts of CPU tensors; must change nothing but the model's registered tensors by
            ``functional_call``. Changes to Python objects are lost where they were made in a forked process.
        model: called by all processes; each has its own after the fork.
        tasks: their number.
        workers: processes, this one included.
        drawing: the error where something draws from torch's generator.

    Raises:
        ConfigError: something drew from torch's generator: it would draw the same in each process.
    """
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    parallel_tasks = tasks - (tasks % workers == 1)  # a single last task runs with all of torch's threads
    queue = _queue_of(parallel_tasks)
    helpers: list[_Helper] = []
    results: dict[int, Any] = {}
    longest = 0.0
    try:
        torch.set_num_threads(1)
        with contextlib.suppress(OSError):  # no process or no memory left: the existing ones do the work
            for _ in range(1, workers):
                helpers.append(_Helper(lambda file: _work(function, model, queue, generator, file)))
        for t in _numbers(queue):
            start = time.monotonic()
            results[t] = function(model, t)
            longest = max(longest, time.monotonic() - start)
        deadline = time.monotonic() + max(LEAST_PATIENCE, PATIENCE * longest)
        for helper in helpers:
            results.update(helper.results(deadline))
        for t in range(parallel_tasks):
            yield results.pop(t) if t in results else function(model, t)
    finally:
        for helper in helpers:
            helper.close()
        os.close(queue)
        torch.set_num_threads(threads)
    if parallel_tasks < tasks:
        yield function(model, parallel_tasks)
    refuse_draws_since(generator, drawing)


def _queue_of(tasks: int) -> int:
    """A pipe that holds the tasks' numbers, closed at its other end: a read of four bytes takes one number, in one process only."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(write, "wb", buffering=0) as file:
        file.write(b"".join(t.to_bytes(4, "little") for t in range(tasks)))
    return read


def _numbers(queue: int) -> Iterator[int]:
    while number := os.read(queue, 4):
        yield int.from_bytes(number, "little")


def _work(function: Callable[[nn.Module, int], Any], model: nn.Module, queue: int, generator: Tensor, file: BinaryIO) -> None:
    """A forked process's share. It ends at the first task that fails or draws random numbers, which the parent then computes."""
    for t in _numbers(queue):
        result = function(model, t)
        if not torch.equal(torch.get_rng_state(), generator):
            return
        pickle.dump((t, _packed(result)), file, protocol=pickle.HIGHEST_PROTOCOL)
        file.flush()


class _Helper:
    """A forked process.

    Args:
        work: what it does; it writes ``(task, packed result)`` to the file it is given.
    """

    def __init__(self, work: Callable[[BinaryIO], None]) -> None:
        self._file = os.fdopen(os.memfd_create("tasks", 0), "w+b")
        self._end, alive = os.pipe()  # reads end of file once the forked process, which holds the other end, has ended
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the forked process would write it as well
        signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: the process has threads; none holds a lock that the work needs
                self._pid: int | None = os.fork()
            if self._pid == 0:
                _serve(work, self._file)
        except OSError:
            self._file.close()
            os.close(self._end)
            raise
        finally:
            os.close(alive)
            signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)

    def results(self, deadline: float) -> dict[int, Any]:
        """What the process computed; those it had written if it has not ended by the deadline (of ``time.monotonic``)."""
        select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
        self._stop()
        self._file.seek(0)
        results = {}
        with contextlib.suppress(EOFError, pickle.UnpicklingError):  # it was killed while it wrote
            while True:
                t, packed = pickle.load(self._file)
                results[t] = _unpacked(packed)
        return results

    def close(self) -> None:
        """End the process and release its resources."""
        self._stop()
        self._file.close()
        os.close(self._end)

    def _stop(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # ended, and a handler of the user's may have waited for it
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = None


def _serve(work: Callable[[BinaryIO], None], file: BinaryIO) -> None:
    """The main function of a forked process. It never returns: the caller's clean-up belongs to the parent."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it must not outlive its parent, whose locks it holds
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        gc.disable()  # it would write to, and so copy, memory shared with the parent
        work(file)
        sys.stdout.flush()  # what a user's function has printed
    finally:
        os._exit(0)


def _packed(result: Any) -> Any:
    """Nested results with each tensor as its bytes, in the order in which they lie in memory."""
    if isinstance(result, Tensor):
        order = sorted(range(result.dim()), key=result.stride, reverse=True)
        memory = result.detach().permute(order).contiguous()
        return memory.reshape(-1).view(torch.uint8).numpy(), memory.shape, order, result.dtype
    if isinstance(result, dict):
        return {key: _packed(item) for key, item in result.items()}
    return [_packed(item) for item in result]


def _unpacked(packed: Any) -> Any:
    if isinstance(packed, tuple):
        data, shape, order, dtype = packed
        axes = sorted(range(len(order)), key=order.__getitem__)
        return torch.from_numpy(data).view(dtype).reshape(shape).permute(axes)
    if isinstance(packed, dict):
        return {key: _unpacked(item) for key, item in packed.items()}
    return tuple(_unpacked(item) for item in packed)
