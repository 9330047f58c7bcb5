"""The queue of trials: a worker takes one under a lease, and trials of dead workers are re-queued.

Optuna's heartbeats cover databases alone. Here a worker renews its lease in the trial's attributes, and every other worker measures
by its own clock how long ago the lease was last renewed, so that neither the storage nor the machines' clocks matter.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

LEASE, ATTEMPT, REQUEUED, ENDED, GOES_ON = "lease", "attempt", "again", "ended", "goes on"


@dataclass
class TrialQueue:
    """The trials of a study.

    Args:
        study: its name.
        storage: where it is kept.
        lease: seconds without renewal after which a worker has lost its trial.
        retries: how often a trial is re-queued after that.
        clock: seconds, for tests.
    """

    study: str
    storage: optuna.storages.BaseStorage
    lease: float
    retries: int
    clock: Callable[[], float] = time.monotonic
    beats: dict[int, tuple[Any, float]] = field(default_factory=dict)

    def open(self, **parts: Any) -> optuna.Study:
        """The study, with a sampler and a pruner where they are needed."""
        return optuna.load_study(study_name=self.study, storage=self.storage, **parts)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, or all."""
        return self.storage.get_all_trials(self.storage.get_study_id_from_name(self.study), deepcopy=False, states=states or None)

    def fill(self, points: Sequence[dict[str, Any]], trials: int) -> None:
        """Queue trials up to a number of trials: the points first, then empty ones that the sampler fills in.

        A trial that was re-queued counts once. Lost trials that a stopped command did not re-queue are re-queued.
        """
        trials_before = self.trials()
        resumed = {t.user_attrs[GOES_ON] for t in trials_before if GOES_ON in t.user_attrs}
        for trial in trials_before:
            if trial.state == TrialState.FAIL and REQUEUED in trial.user_attrs and trial.number not in resumed:
                self._requeue(trial)
        study = self.open()
        for i in range(sum(REQUEUED not in t.user_attrs for t in self.trials()), trials):
            study.enqueue_trial(points[i] if i < len(points) else {})

    def take(self, study: optuna.Study) -> optuna.Trial | None:
        """The next queued trial, this worker's alone from now on; None where none is queued."""
        for waiting in self.trials(TrialState.WAITING):
            try:
                if self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    return optuna.Trial(study, waiting._trial_id)
            except UpdateFinishedTrialError:  # another worker took it and has finished
                continue
        return None

    def give_back(self, number: int, reason: str, counted: bool) -> None:
        """Give a trial up unfinished; it is re-queued.

        Args:
            number: of the trial.
            reason: why, in words.
            counted: whether it counts toward ``retries``.
        """
        trial = self.trial(number)
        attempt = trial.user_attrs.get(ATTEMPT, 0) + counted
        try:
            self.storage.set_trial_user_attr(trial._trial_id, ENDED, reason)
            if attempt <= self.retries:
                self.storage.set_trial_user_attr(trial._trial_id, REQUEUED, attempt)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:  # another worker gave it back
            return
        if attempt <= self.retries:
            self._requeue(self.trial(number))

    def collect(self) -> list[str]:
        """Give back the trials whose workers have died.

        Returns:
            A line about each.
        """
        lines = []
        for trial in self.trials(TrialState.RUNNING):
            beat, now = trial.user_attrs.get(LEASE, {}), self.clock()
            last_beat, renewed = self.beats.setdefault(trial.number, (beat, now))
            if beat != last_beat:
                self.beats[trial.number] = beat, now
            elif now - renewed > self.lease or _dead(beat):
                reason = f"its worker{' ' + beat['worker'] if beat else ''} stopped answering"
                self.give_back(trial.number, reason, counted=True)
                lines.append(f"trial {trial.number}: {reason}")
        return lines

    def trial(self, number: int) -> FrozenTrial:
        """One trial as it is now."""
        study = self.storage.get_study_id_from_name(self.study)
        return self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def _requeue(self, trial: FrozenTrial) -> None:
        point = trial.params or trial.system_attrs.get("fixed_params", {})
        self.open().enqueue_trial(point, user_attrs={ATTEMPT: trial.user_attrs[REQUEUED], GOES_ON: trial.number})


class Lease:
    """While this context is open, a thread renews the lease on a trial.

    Attributes:
        lost: set once another worker has taken the trial over, or the storage does not answer for longer than the lease.
    """

    def __init__(self, queue: TrialQueue, trial: optuna.Trial, worker: str) -> None:
        self.queue, self.trial, self.worker = queue, trial, worker
        self.lost, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._beat = 0

    def __enter__(self) -> Lease:
        self._renew_once()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _renew_once(self) -> None:
        self._beat += 1
        beat = {"worker": self.worker, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beat}
        self.queue.storage.set_trial_user_attr(self.trial._trial_id, LEASE, beat)

    def _renew(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self.queue.lease / 4):
            try:
                self._renew_once()
                last = time.monotonic()
            except UpdateFinishedTrialError:
                self.lost.set()
                return
            except Exception:  # a storage that does not answer for a while
                if time.monotonic() - last > self.queue.lease:
                    self.lost.set()
                    return


def _dead(beat: dict[str, Any]) -> bool:
    """Whether the process that held a lease ran on this machine and has ended."""
    if beat.get("host") != socket.gethostname():
        return False
    try:
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user's
        pass
    return False
