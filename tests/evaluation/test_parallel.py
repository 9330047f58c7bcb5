"""Batches of a measurement in forked processes: the same results in their order, and no random numbers that every process would draw alike."""

from __future__ import annotations

import os
import time

import pytest
import torch
from torch import nn

from metaflowkit.engines.process_map import can_fork
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.parallel import in_parallel


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def measured(i: int) -> dict[str, torch.Tensor]:
    time.sleep(0.05)  # or one process would be through before the other has started
    return {"i": torch.tensor(i), "process": torch.tensor(os.getpid())}


def test_the_same_results_in_their_order_by_several_processes(two_threads) -> None:
    advanced = []
    results = in_parallel(measured, nn.Linear(1, 1), 8, lambda: advanced.append(os.getpid()))
    assert [int(result["i"]) for result in results] == list(range(8))
    own = sum(int(result["process"]) == os.getpid() for result in results)
    if can_fork(2):
        assert 0 < own < 8
        assert advanced == [os.getpid()] * 2 * own


@pytest.mark.parametrize(("threads", "count"), [(1, 8), (2, 3)])
def test_one_after_the_other_where_forking_would_not_pay(two_threads, threads, count) -> None:
    torch.set_num_threads(threads)
    advanced = []
    results = in_parallel(measured, nn.Linear(1, 1), count, lambda: advanced.append(1))
    assert {int(result["process"]) for result in results} == {os.getpid()}
    assert len(results) == len(advanced) == count


@pytest.mark.skipif(not can_fork(torch.get_num_threads()), reason="no process is forked here")
def test_numbers_of_the_shared_generator_are_refused(two_threads) -> None:
    with pytest.raises(
        ConfigError, match=r"^evaluate: random numbers are drawn from torch's generator, by a readout or .*; draw them from a torch.Generator of your own"
    ):
        in_parallel(lambda i: {"x": torch.rand(1)}, nn.Linear(1, 1), 8)
