"""What processes exchange, and how they end together."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from metaflowkit.distributed import processes
from metaflowkit.distributed.processes import joined
from metaflowkit.distributed.world import ALONE, EndedElsewhere, LostProcess, World
from metaflowkit.errors import ConfigError, DataError, RunError
from tests.distributed.group import run_in_group


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(processes, "SETTLING", 0.6)


def exchanged(world: World):
    machine = world.one_by_machine(lambda: world.rank)
    return (
        world.interleaved([10 * i for i in world.share(7)]),
        world.add(torch.full((2,), 1.0 + world.rank)).tolist(),
        world.from_first(lambda: world.rank),
        machine,
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_exchange_values_and_the_order_of_items_is_kept(size) -> None:
    total = size * (size + 1) / 2
    assert run_in_group(size, exchanged) == [([0, 10, 20, 30, 40, 50, 60], [total, total], 0, rank) for rank in range(size)]
    if size == 1:
        assert exchanged(ALONE) == ([0, 10, 20, 30, 40, 50, 60], [1.0, 1.0], 0, 0)


def test_an_error_in_one_process_ends_all_and_is_told_once() -> None:
    def run(world: World) -> str:
        with world.together():
            if world.rank in (1, 2):
                raise DataError(f"images: process {world.rank} has none; give it some")
        return "went on"

    results = run_in_group(4, run)
    assert str(results[1]) == "images: process 1 has none; give it some"
    assert [type(result) for result in results] == [EndedElsewhere, DataError, EndedElsewhere, EndedElsewhere]
    assert {result.exit_code for result in results} == {1}


def test_an_error_outside_a_common_block_is_told_once_too() -> None:
    def run(world: World) -> None:
        if world.rank == 1:
            raise ConfigError("inner.steps: must be smaller")
        world.add(torch.ones(1))

    results = run_in_group(3, run)
    assert [type(result) for result in results] == [EndedElsewhere, ConfigError, EndedElsewhere]
    assert {result.exit_code for result in results} == {2}


def test_a_killed_process_ends_the_others_of_which_one_says_so() -> None:
    def run(world: World) -> None:
        world.add(torch.ones(1))
        if world.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        world.add(torch.ones(1))

    results = run_in_group(3, run)
    assert results[2] is None
    assert sorted(type(result).__name__ for result in results[:2]) == ["EndedElsewhere", "LostProcess"]
    (error,) = (result for result in results if type(result) is LostProcess)
    assert str(error).startswith("the connection to another process of this run is lost: it was killed, it ran out of memory, or its machine is gone")


def test_a_process_that_hangs_is_named_within_the_timeout() -> None:
    def run(world: World) -> None:
        world.add(torch.ones(1))
        if world.rank == 1:
            time.sleep(30)
        world.add(torch.ones(1))

    start = time.monotonic()
    results = run_in_group(3, run, timeout=2, abandon=[1])
    assert time.monotonic() - start < 15
    (error,) = (result for result in results if type(result) is LostProcess)
    assert str(error) == "no answer within 2 s from process 1 of 3, which hangs or is too slow; see --timeout"


def test_a_meeting_point_that_cannot_be_reached_is_named(monkeypatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r"^127\.0\.0\.1:9: process 1 of 2 on \S+ cannot meet the others there within 1 s \("), joined(timeout=1):
        pass


def test_a_launcher_with_other_variables_than_numbers_is_refused(monkeypatch) -> None:
    for name, value in {"RANK": "one", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="must be numbers, got RANK=one, WORLD_SIZE=2, .*; start with torchrun, or unset them"), joined():
        pass


def test_without_a_launcher_a_process_is_alone(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined() as world:
        assert world is ALONE
