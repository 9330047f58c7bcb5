"""A worker: takes trials of a study, one after the other, until none is left."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from metaflowkit.config import registry
from metaflowkit.errors import Interrupted, MetaflowkitError
from metaflowkit.search.specification import Search
from metaflowkit.search.storage import experimental
from metaflowkit.search.trial import Ended, Lost, Watch, run_trial
from metaflowkit.search.trial_queue import AGAIN, ATTEMPT, ENDED, GOES_ON, Lease, TrialQueue
from metaflowkit.seeding import seed_for
from metaflowkit.training.signals import on_stop

TRIALS = "trials"


def work(search: Search, queue: TrialQueue, folder: Path, index: int | None = None, tell: Callable[[str], None] = print) -> None:
    """Work on a study until no trial is queued or running, or until asked to stop.

    Args:
        search: what is searched.
        queue: the study's trials.
        folder: of the study, where run directories are made.
        index: which of several local workers this is; None for one that joined by itself.
        tell: gets a line about every trial.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the trial is saved and queued.
        MetaflowkitError: what would stop every trial; this one is queued again.
    """
    worker = f"{socket.gethostname()}/{os.getpid()}"
    before = len(queue.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    purpose = f"search/{worker if index is None else index}"
    seed = seed_for(search.settings.seed, purpose, before) % 2**32  # another one where a study goes on, not the same draws again
    with experimental():
        sampler = registry.SAMPLERS.build(search.settings.sampler, seed=seed)
        pruner = registry.PRUNERS.build(search.settings.pruner, outer_steps=search.pipeline.outer.steps)
    stopped = threading.Event()
    asked: list[str] = []

    def stop(name: str) -> None:
        asked.append(name)
        stopped.set()

    with on_stop(stop):
        while not stopped.is_set():
            for line in queue.collect():
                tell(line)
            study = queue.open(sampler=sampler, pruner=pruner)
            trial = queue.take(study)
            if trial is None:
                if not queue.trials(TrialState.RUNNING):
                    return
                stopped.wait(1.0)
                continue
            with Lease(queue, trial, worker) as lease:
                tell(f"trial {trial.number}: {_do(search, queue, study, trial, folder, lease)}")
    raise Interrupted("stopped, with no trial at hand", asked[0])


def _do(search: Search, queue: TrialQueue, study: optuna.Study, trial: optuna.Trial, folder: Path, lease: Lease) -> str:
    """Run a trial and say how it ended."""
    started = time.monotonic()
    goes_on, spent = _earlier(queue, folder, trial)
    watch = Watch(trial, lease, search, spent)
    try:
        ended = run_trial(search, trial, run_folder(folder, trial.number), watch, goes_on)
        if lease.lost.is_set():
            raise Lost
        _tell(study, trial, ended, search, time.monotonic() - started + spent)
        return ended.reason or "complete"
    except (Lost, UpdateFinishedTrialError):
        return "taken away, since this worker did not answer in time"
    except Interrupted:
        trial.set_user_attr("seconds", watch.costs()["seconds"])
        queue.give_back(trial.number, "stopped and saved", counted=False)
        raise Interrupted(f"trial {trial.number}: stopped and saved; go on with the same command") from None
    except Exception as error:
        queue.give_back(trial.number, str(error) if isinstance(error, MetaflowkitError) else f"{type(error).__name__}: {error}", counted=True)
        raise


def _tell(study: optuna.Study, trial: optuna.Trial, ended: Ended, search: Search, seconds: float) -> None:
    for name, value in ended.metrics.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("search seconds", seconds - ended.metrics.get("seconds", 0.0))
    trial.set_user_attr(ENDED, ended.reason)
    for name, limit in search.settings.limits.set().items():
        trial.set_constraint(name, ended.metrics.get(name, limit) - limit)
    values = [ended.metrics.get(metric) for metric in search.metrics]
    complete = ended.state == TrialState.COMPLETE and None not in values
    study.tell(trial, values if complete else None, None if complete else TrialState.PRUNED)  # type: ignore[arg-type]


def run_folder(folder: Path, number: int) -> Path:
    """The run directory of a trial."""
    return folder / TRIALS / f"{number:04d}"


def _earlier(queue: TrialQueue, folder: Path, trial: optuna.Trial) -> tuple[Path | None, float]:
    """The run that a trial goes on with, and its seconds: one that was stopped and saved, not one whose worker may still be at it."""
    number = trial.user_attrs.get(GOES_ON)
    if number is None:
        return None, 0.0
    earlier = queue.trial(number).user_attrs
    saved = earlier[AGAIN] == earlier.get(ATTEMPT, 0)
    return (run_folder(folder, number), earlier["seconds"]) if saved else (None, 0.0)


def end_with(parent: int) -> None:
    """Ask this process to stop, as SIGTERM does, once its parent is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(2.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
