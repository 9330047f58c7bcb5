"""No trial is lost and none is done twice, whatever becomes of the workers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

import optuna
import pytest
from optuna.trial import TrialState

from metaflowkit.search.storage import open_storage
from metaflowkit.search.trial_queue import AGAIN, ATTEMPT, ENDED, GOES_ON, LEASE, Lease, Slots

ELSEWHERE = {"worker": "elsewhere/1", "host": "elsewhere", "pid": 1}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["journal", "sqlite"])
def location(request, tmp_path):
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def slots(tmp_path, location):
    storage = open_storage(location, tmp_path)
    optuna.create_study(study_name="s", storage=storage)
    return Slots("s", storage, lease=10.0, retries=2, clock=Clock())


def _take(slots):
    trial = slots.take(slots.open())
    trial.suggest_float("x", 0, 1)
    return trial


def _beat(slots, trial, n) -> None:
    slots.storage.set_trial_user_attr(trial._trial_id, LEASE, {**ELSEWHERE, "beat": n})


def test_slots_are_filled_once_and_taken_once(slots) -> None:
    slots.fill([{"x": 0.25}], 3)
    slots.fill([{"x": 0.25}], 3)
    assert [t.state for t in slots.trials()] == [TrialState.WAITING] * 3
    first, *others = [_take(slots).params["x"] for _ in range(3)]
    assert first == 0.25
    assert 0.25 not in others
    assert slots.take(slots.open()) is None
    slots.fill([{"x": 0.25}], 5)
    assert len(slots.trials(TrialState.WAITING)) == 2


def test_a_lease_that_stands_still_is_over_whatever_the_clocks_of_the_machines_say(slots) -> None:
    slots.fill([], 1)
    trial = _take(slots)
    _beat(slots, trial, 1)
    assert slots.collect() == []
    slots.clock.now = 9.0
    _beat(slots, trial, 2)
    assert slots.collect() == []
    slots.clock.now = 18.0
    assert slots.collect() == []
    slots.clock.now = 19.1
    assert slots.collect() == ["trial 0: its worker elsewhere/1 stopped answering"]
    lost, again = slots.trials()
    assert (lost.state, lost.user_attrs[ENDED], lost.user_attrs[AGAIN]) == (TrialState.FAIL, "its worker elsewhere/1 stopped answering", 1)
    assert (again.state, again.user_attrs[ATTEMPT], again.user_attrs[GOES_ON]) == (TrialState.WAITING, 1, 0)
    assert _take(slots).params == lost.params
    slots.fill([], 1)
    assert len(slots.trials()) == 2  # the slot that was re-queued counts once


def test_a_trial_is_put_again_so_many_times_and_no_more(slots) -> None:
    slots.fill([], 1)
    for _ in range(3):
        _beat(slots, _take(slots), 1)
        slots.collect()
        slots.clock.now += 11
        slots.collect()
    states = [t.state for t in slots.trials()]
    assert states == [TrialState.FAIL] * 3
    assert AGAIN not in slots.trials()[-1].user_attrs
    assert slots.take(slots.open()) is None


def test_two_who_see_a_dead_worker_put_its_trial_again_once(slots, tmp_path, location) -> None:
    slots.fill([], 1)
    _beat(slots, _take(slots), 1)
    other = Slots("s", open_storage(location, tmp_path), 10.0, 2, slots.clock)
    for some in (slots, other):
        some.collect()
    slots.clock.now = 11.0
    for some in (slots, other):
        some.collect()
    assert [t.state for t in slots.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_what_was_given_up_but_not_put_again_is_made_good(slots, monkeypatch) -> None:
    slots.fill([], 1)
    trial = _take(slots)
    monkeypatch.setattr(Slots, "_put_again", lambda self, trial: None)  # killed right before
    slots.give_back(trial.number, "stopped", counted=False)
    monkeypatch.undo()
    assert [t.state for t in slots.trials()] == [TrialState.FAIL]
    slots.fill([], 1)
    slots.fill([], 1)
    assert [t.state for t in slots.trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert slots.trials()[1].user_attrs[ATTEMPT] == 0


def test_a_dead_process_of_this_machine_is_seen_at_once(slots, tmp_path, location) -> None:
    slots.fill([], 1)
    code = f"""
import os, signal
from metaflowkit.search.trial_queue import Lease, Slots
from metaflowkit.search.storage import open_storage
slots = Slots("s", open_storage({location!r}, __import__("pathlib").Path({str(tmp_path)!r})), 10.0, 2)
with Lease(slots, slots.take(slots.open()), "here"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert slots.trials()[0].state == TrialState.RUNNING
    assert slots.collect() == ["trial 0: its worker here stopped answering"]


def test_a_lease_is_renewed_and_ends_where_the_trial_was_taken_away(slots) -> None:
    slots.lease = 0.2
    slots.fill([], 1)
    trial = _take(slots)
    with Lease(slots, trial, "here") as lease:
        deadline = time.monotonic() + 5
        while slots.trial(0).user_attrs[LEASE]["beat"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not lease.lost.is_set()
        assert slots.trial(0).user_attrs[LEASE]["pid"] == os.getpid()
        slots.give_back(0, "for the test", counted=True)
        assert lease.lost.wait(5)
    assert slots.trials()[1].state == TrialState.WAITING


def _eat(location, folder, take: int, queue) -> None:
    slots = Slots("s", open_storage(location, folder), 60.0, 2)
    done = []
    while (trial := slots.take(slots.open())) is not None:
        study = slots.open()
        study.tell(trial, trial.suggest_float("x", 0, 1))
        done.append(trial.number)
    queue.put(done)


@pytest.mark.parametrize("workers", [3])
def test_workers_share_the_slots_without_loss_or_double(tmp_path, location, workers) -> None:
    share(tmp_path, location, workers, 10)


@pytest.mark.slow
def test_eight_workers_on_a_journal_file(tmp_path) -> None:
    share(tmp_path, None, 8, 25)


def share(folder, location, workers: int, each: int) -> None:
    """So many processes take all slots of a study; every slot is done once."""
    storage = open_storage(location, folder)
    optuna.create_study(study_name="s", storage=storage)
    slots = Slots("s", storage, 60.0, 2)
    slots.fill([], workers * each)
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    crew = [spawn.Process(target=_eat, args=(location, folder, each, queue)) for _ in range(workers)]
    for process in crew:
        process.start()
    done = [number for _ in crew for number in queue.get(timeout=120)]
    for process in crew:
        process.join()
    assert sorted(done) == list(range(workers * each))
    assert [t.state for t in slots.trials()] == [TrialState.COMPLETE] * (workers * each)
