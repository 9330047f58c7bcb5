"""Threads side by side give what one after the other gives, in order, and leave torch as it was."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metaflowkit.engines.thread_map import thread_map
from metaflowkit.errors import ConfigError
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model


@pytest.fixture
def model() -> Model:
    return Model(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), Linear(2, 2))


@pytest.fixture
def four_threads(monkeypatch):
    """Four of torch's threads, in this thread and on paper; each thread has a number of its own."""
    own = threading.local()
    monkeypatch.setattr(torch, "get_num_threads", lambda: getattr(own, "n", 4))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: setattr(own, "n", n))


@pytest.mark.parametrize(("tasks", "workers"), [(5, 2), (7, 3), (8, 3), (2, 4), (8, 4)])
def test_results_come_in_order_with_threads_shared_out(model, four_threads, tasks, workers) -> None:
    seen = {}

    def work(_, t: int) -> int:
        time.sleep(0.01 * (tasks - t))
        seen[t] = torch.get_num_threads(), threading.current_thread() is threading.main_thread()
        return t * t

    assert list(thread_map(work, model, tasks, workers)) == [t * t for t in range(tasks)]
    alone = tasks - 1 if tasks % workers == 1 else None
    assert seen == {t: (4, True) if t == alone else (4 // workers, False) for t in range(tasks)}
    assert torch.get_num_threads() == 4


def test_workers_run_at_the_same_time_on_modules_of_their_own_with_the_same_tensors(model) -> None:
    barrier = threading.Barrier(2, timeout=10)

    def work(replica: Model, t: int) -> list[torch.Tensor]:
        own = {name: torch.full_like(p, t) for name, p in replica.named_parameters()}
        barrier.wait()  # passed by two at once, or by none
        assert all(a is b for a, b in zip([*replica.parameters(), *replica.buffers()], [*model.parameters(), *model.buffers()]))
        assert replica.backbone is not model.backbone

        class Look(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.replica = replica

            def forward(self):
                barrier.wait()  # both are inside functional_call
                return [p.clone() for p in self.replica.parameters()]

        return functional_call(Look(), {f"replica.{name}": p for name, p in own.items()})

    before = [p.clone() for p in model.parameters()]
    for t, found in enumerate(thread_map(work, model, 4, 2)):
        assert all((p == t).all() for p in found)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_an_error_in_a_task_is_raised_and_threads_are_given_back(model, four_threads) -> None:
    def work(_, t: int) -> int:
        if t == 2:
            raise ValueError("task 2")
        return t

    with pytest.raises(ValueError, match="task 2"):
        list(thread_map(work, model, 4, 2))
    assert torch.get_num_threads() == 4


def test_random_numbers_that_nobody_knows_of_are_refused(model) -> None:
    with pytest.raises(ConfigError, match=r"inner.engine: random numbers are drawn in the inner loop.*workers: 1"):
        list(thread_map(lambda _, t: torch.rand(()), model, 4, 2))
    assert len(list(thread_map(lambda _, t: torch.rand((), generator=torch.Generator()), model, 4, 2))) == 4


def test_where_a_task_fails_the_others_have_ended_when_the_error_comes(model) -> None:
    active: list[int] = []

    def work(_, t: int) -> None:
        if t == 0:
            raise ValueError("task 0")
        active.append(t)
        time.sleep(0.05)
        active.remove(t)

    with pytest.raises(ValueError, match="task 0"):
        list(thread_map(work, model, 8, 4))
    assert not active
