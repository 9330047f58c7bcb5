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
from metaflowkit.search.trial_queue import ATTEMPT, ENDED, GOES_ON, LEASE, REQUEUED, Lease, TrialQueue

ELSEWHERE = {"worker": "elsewhere/1", "host": "elsewhere", "pid": 1}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["journal", "sqlite"])
def location(request, tmp_path):
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def queue(tmp_path, location):
    storage = open_storage(location, tmp_path)
    optuna.create_study(study_name="s", storage=storage)
    return TrialQueue("s", storage, lease=10.0, retries=2, clock=Clock())


def _take(queue):
    trial = queue.take(queue.open())
    trial.suggest_float("x", 0, 1)
    return trial


def _beat(queue, trial, n) -> None:
    queue.storage.set_trial_user_attr(trial._trial_id, LEASE, {**ELSEWHERE, "beat": n})


def test_trials_are_queued_once_and_taken_once(queue) -> None:
    queue.fill([{"x": 0.25}], 3)
    queue.fill([{"x": 0.25}], 3)
    assert [t.state for t in queue.trials()] == [TrialState.WAITING] * 3
    first, *others = [_take(queue).params["x"] for _ in range(3)]
    assert first == 0.25
    assert 0.25 not in others
    assert queue.take(queue.open()) is None
    queue.fill([{"x": 0.25}], 5)
    assert len(queue.trials(TrialState.WAITING)) == 2


def test_a_lease_that_stands_still_is_over_whatever_the_clocks_of_the_machines_say(queue) -> None:
    queue.fill([], 1)
    trial = _take(queue)
    _beat(queue, trial, 1)
    assert queue.collect() == []
    queue.clock.now = 9.0
    _beat(queue, trial, 2)
    assert queue.collect() == []
    queue.clock.now = 18.0
    assert queue.collect() == []
    queue.clock.now = 19.1
    assert queue.collect() == ["trial 0: its worker elsewhere/1 stopped answering"]
    lost, again = queue.trials()
    assert (lost.state, lost.user_attrs[ENDED], lost.user_attrs[REQUEUED]) == (TrialState.FAIL, "its worker elsewhere/1 stopped answering", 1)
    assert (again.state, again.user_attrs[ATTEMPT], again.user_attrs[GOES_ON]) == (TrialState.WAITING, 1, 0)
    assert _take(queue).params == lost.params
    queue.fill([], 1)
    assert len(queue.trials()) == 2  # the trial that was re-queued counts once


def test_a_trial_is_requeue_so_many_times_and_no_more(queue) -> None:
    queue.fill([], 1)
    for _ in range(3):
        _beat(queue, _take(queue), 1)
        queue.collect()
        queue.clock.now += 11
        queue.collect()
    states = [t.state for t in queue.trials()]
    assert states == [TrialState.FAIL] * 3
    assert REQUEUED not in queue.trials()[-1].user_attrs
    assert queue.take(queue.open()) is None


def test_two_who_see_a_dead_worker_put_its_trial_again_once(queue, tmp_path, location) -> None:
    queue.fill([], 1)
    _beat(queue, _take(queue), 1)
    other = TrialQueue("s", open_storage(location, tmp_path), 10.0, 2, queue.clock)
    for some in (queue, other):
        some.collect()
    queue.clock.now = 11.0
    for some in (queue, other):
        some.collect()
    assert [t.state for t in queue.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_what_was_given_up_but_not_requeue_is_made_good(queue, monkeypatch) -> None:
    queue.fill([], 1)
    trial = _take(queue)
    monkeypatch.setattr(TrialQueue, "_requeue", lambda self, trial: None)  # killed right before
    queue.give_back(trial.number, "stopped", counted=False)
    monkeypatch.undo()
    assert [t.state for t in queue.trials()] == [TrialState.FAIL]
    queue.fill([], 1)
    queue.fill([], 1)
    assert [t.state for t in queue.trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert queue.trials()[1].user_attrs[ATTEMPT] == 0


def test_a_dead_process_of_this_machine_is_seen_at_once(queue, tmp_path, location) -> None:
    queue.fill([], 1)
    code = f"""
import os, signal
from metaflowkit.search.trial_queue import Lease, TrialQueue
from metaflowkit.search.storage import open_storage
queue = TrialQueue("s", open_storage({location!r}, __import__("pathlib").Path({str(tmp_path)!r})), 10.0, 2)
with Lease(queue, queue.take(queue.open()), "here"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert queue.trials()[0].state == TrialState.RUNNING
    assert queue.collect() == ["trial 0: its worker here stopped answering"]


def test_a_lease_is_renewed_and_ends_where_the_trial_was_taken_away(queue) -> None:
    queue.lease = 0.2
    queue.fill([], 1)
    trial = _take(queue)
    with Lease(queue, trial, "here") as lease:
        deadline = time.monotonic() + 5
        while queue.trial(0).user_attrs[LEASE]["beat"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not lease.lost.is_set()
        assert queue.trial(0).user_attrs[LEASE]["pid"] == os.getpid()
        queue.give_back(0, "for the test", counted=True)
        assert lease.lost.wait(5)
    assert queue.trials()[1].state == TrialState.WAITING


def _eat(location, folder, results) -> None:
    queue = TrialQueue("s", open_storage(location, folder), 60.0, 2)
    done = []
    while (trial := queue.take(queue.open())) is not None:
        study = queue.open()
        study.tell(trial, trial.suggest_float("x", 0, 1))
        done.append(trial.number)
    results.put(done)


@pytest.mark.parametrize("workers", [3])
def test_workers_share_the_trials_without_loss_or_double(tmp_path, location, workers) -> None:
    share(tmp_path, location, workers, 10)


@pytest.mark.slow
def test_eight_workers_on_a_journal_file(tmp_path) -> None:
    share(tmp_path, None, 8, 25)


def share(folder, location, workers: int, each: int) -> None:
    """So many processes take all trials of a study; each is done once."""
    storage = open_storage(location, folder)
    optuna.create_study(study_name="s", storage=storage)
    queue = TrialQueue("s", storage, 60.0, 2)
    queue.fill([], workers * each)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=_eat, args=(location, folder, results)) for _ in range(workers)]
    for process in processes:
        process.start()
    done = [number for _ in processes for number in results.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(done) == list(range(workers * each))
    assert [t.state for t in queue.trials()] == [TrialState.COMPLETE] * (workers * each)
