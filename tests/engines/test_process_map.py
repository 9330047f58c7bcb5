"""Forked processes give what threads give, to the bit, whatever becomes of them, and leave nothing behind."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from metaflowkit.engines import process_map as module
from metaflowkit.engines.process_map import can_fork, process_map
from metaflowkit.engines.task_map import TRIALS, TaskMap
from metaflowkit.engines.thread_map import thread_map
from metaflowkit.errors import ConfigError
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
PARENT = os.getpid()
BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


@pytest.fixture
def model() -> Model:
    return Model(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), Linear(2, 2))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    files, threads = sorted(os.listdir("/proc/self/fd")), torch.get_num_threads()
    yield
    assert sorted(os.listdir("/proc/self/fd")) == files
    assert torch.get_num_threads() == threads
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def number(_: Model, t: int) -> tuple[Tensor, Tensor]:
    time.sleep(0.1)
    return torch.tensor(t * t), torch.tensor(os.getpid())


@pytest.mark.parametrize(("tasks", "workers"), [(2, 2), (5, 2), (7, 3), (8, 4), (1, 4)])
def test_results_come_in_order_from_several_processes(model, tasks, workers) -> None:
    results = list(process_map(number, model, tasks, workers))
    assert [int(square) for square, _ in results] == [t * t for t in range(tasks)]
    assert min(tasks, 2) <= len({int(pid) for _, pid in results}) <= workers  # on a busy machine one may come too late for its task
    alone = tasks % workers == 1
    assert not alone or int(results[-1][1]) == os.getpid()


def test_gradients_are_those_of_threads_to_the_bit_and_in_memory_order(model) -> None:
    x = torch.randn(6, 4, 8, 9, 9).contiguous(memory_format=torch.channels_last_3d)[0].contiguous(memory_format=torch.channels_last)
    convolution = nn.Conv2d(8, 5, 3).to(memory_format=torch.channels_last)

    def work(_: Model, t: int) -> tuple[dict[str, Tensor], Tensor]:
        own = copy.deepcopy(convolution)
        value = grad(lambda p: functional_call(own, p, (x + t,)).square().mean())
        return value({name: p.detach() for name, p in own.named_parameters()}), x[t % 4]

    for threads, processes in zip(list(thread_map(work, model, 4, 2)), list(process_map(work, model, 4, 2))):
        for a, b in zip([*threads[0].values(), threads[1]], [*processes[0].values(), processes[1]]):
            assert torch.equal(a, b)
            assert (a.stride(), a.dtype) == (b.stride(), b.dtype)


@pytest.mark.parametrize(
    "value",
    [torch.tensor(2.5), torch.zeros(0, 3), torch.tensor([True, False]), torch.arange(6).view(2, 3).T, torch.randn(3, dtype=torch.bfloat16)]
    + [torch.randn(2, dtype=torch.complex64), nn.Parameter(torch.ones(2))],
    ids=["scalar", "empty", "bool", "transposed", "bfloat16", "complex", "parameter"],
)
def test_any_tensor_comes_back_as_it_was_and_can_be_written(model, value) -> None:
    def work(_: Model, t: int) -> dict[str, tuple[Tensor, ...]]:
        time.sleep(0.02)
        return {"x": (value.clone(memory_format=torch.preserve_format),)}

    for result in process_map(work, model, 4, 2):
        (x,) = result["x"]
        assert torch.equal(x, value)
        assert x.dtype == value.dtype
        with torch.no_grad():
            x.copy_(x.clone())


def fails(_: Model, t: int) -> Tensor:
    time.sleep(0.02)
    if t == 2:
        raise ValueError(f"task {t}")
    return torch.tensor(t)


def killed(_: Model, t: int) -> Tensor:
    time.sleep(0.02)
    if os.getpid() != PARENT and t > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.tensor(t)


def fails_in_a_forked_process(_: Model, t: int) -> Tensor:
    time.sleep(0.02)
    if os.getpid() != PARENT:
        raise MemoryError
    return torch.tensor(t)


def hangs(_: Model, t: int) -> Tensor:
    time.sleep(0.02 if os.getpid() == PARENT else 600)
    return torch.tensor(t)


def test_an_error_is_raised_where_it_was_caused_and_not_twice(model) -> None:
    with pytest.raises(ValueError, match="task 2") as caught:
        list(process_map(fails, model, 8, 2))
    assert caught.traceback[-1].name == "fails"


@pytest.mark.parametrize("work", [killed, fails_in_a_forked_process, hangs])
def test_a_process_that_comes_to_harm_costs_no_result(model, monkeypatch, work) -> None:
    monkeypatch.setattr(module, "LEAST_PATIENCE", 0.5)
    start = time.monotonic()
    assert [int(x) for x in process_map(work, model, 8, 2)] == list(range(8))
    assert time.monotonic() - start < 20


def test_without_a_process_to_be_had_the_work_is_done_here(model, monkeypatch) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fork)
    assert {int(pid) for _, pid in process_map(number, model, 4, 2)} == {PARENT}


def test_results_nobody_waits_for_end_the_processes(model) -> None:
    results = process_map(number, model, 8, 2)
    next(results)
    results.close()


def test_ctrl_c_which_reaches_every_process_is_left_to_this_one(model) -> None:
    def work(_: Model, t: int) -> Tensor:
        time.sleep(0.1)
        if os.getpid() != PARENT:
            os.kill(os.getpid(), signal.SIGINT)
        return torch.tensor(os.getpid())

    assert len({int(pid) for pid in process_map(work, model, 8, 2)}) == 2


def test_an_interrupt_of_this_process_ends_the_others(model) -> None:
    def work(_: Model, t: int) -> Tensor:
        if os.getpid() == PARENT:
            raise KeyboardInterrupt
        time.sleep(600)
        return torch.tensor(t)

    with pytest.raises(KeyboardInterrupt):
        list(process_map(work, model, 4, 2))


def test_random_numbers_that_nobody_knows_of_are_refused_also_where_a_forked_process_draws_them(model) -> None:
    def work(_: Model, t: int) -> Tensor:
        time.sleep(0.5 if os.getpid() == PARENT and t < 3 else 0.02)  # task 3 is taken by the other process
        return torch.rand(()) if t == 3 else torch.tensor(0.0)

    with pytest.raises(ConfigError, match=r"inner.engine: random numbers are drawn in the inner loop.*workers: 1"):
        list(process_map(work, model, 4, 2))
    assert len(list(process_map(lambda _, t: torch.rand((), generator=torch.Generator()), model, 4, 2))) == 4


def run(script: str) -> subprocess.CompletedProcess[str]:
    head = "import os, signal, time, torch\nfrom metaflowkit.engines.process_map import process_map\nparent = os.getpid()\n"
    return subprocess.run([sys.executable, "-c", head + textwrap.dedent(script)], capture_output=True, timeout=120, text=True, env=BUFFERED)


def test_what_a_users_function_prints_is_seen_once() -> None:
    ended = run("""
        def work(model, t):
            time.sleep(0.02)
            print("task", t)
            return torch.tensor(t)

        print("before")  # still in the buffer of a pipe when the process is forked
        list(process_map(work, None, 4, 2))
    """)
    assert sorted(ended.stdout.splitlines()) == ["before", "task 0", "task 1", "task 2", "task 3"], ended.stderr


def test_no_process_outlives_its_parent() -> None:
    ended = run("""
        def work(model, t):
            if os.getpid() == parent:
                time.sleep(0.5)
                os.kill(parent, signal.SIGKILL)
            time.sleep(600)

        list(process_map(work, None, 4, 2))
    """)  # the pipe of its output stays open for as long as a process of its lives, and that is waited for
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_the_faster_map_is_chosen_after_each_was_tried(model, monkeypatch) -> None:
    calls: list[str] = []
    clock = [0.0]

    def slow(name: str, seconds: float):
        def run(function, model, tasks, workers):
            calls.append(name)
            clock[0] += seconds
            yield from (function(model, t) for t in range(tasks))

        return run

    monkeypatch.setattr("metaflowkit.engines.task_map.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("metaflowkit.engines.task_map.thread_map", slow("threads", 2.0))
    monkeypatch.setattr("metaflowkit.engines.task_map.process_map", slow("processes", 1.0))
    monkeypatch.setattr("metaflowkit.engines.task_map.can_fork", lambda workers: True)
    both = TaskMap()
    for _ in range(2 * TRIALS + 4):
        assert list(both(lambda _, t: t, model, 3, 2, "outcome")) == [0, 1, 2]
    assert [calls[:i].count("threads") for i in (1, 2, 2 * TRIALS)] == [1, 1, TRIALS]
    assert calls[2 * TRIALS :] == ["processes"] * 4
    list(both(lambda _, t: t, model, 3, 2, "another"))
    assert calls[-1] == "threads"
    monkeypatch.setattr("metaflowkit.engines.task_map.can_fork", lambda workers: False)
    alone = TaskMap()
    for _ in range(4):
        list(alone(lambda _, t: t, model, 3, 2, "outcome"))
    assert calls[-4:] == ["threads"] * 4


def test_processes_are_not_forked_beside_a_device_or_openmp_threads() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 4)
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        assert [can_fork(workers) for workers in (4, 3, 2)] == [True, True, False]
        patch.setattr(torch.accelerator, "is_available", lambda: True)
        assert not can_fork(4)
