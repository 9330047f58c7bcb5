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
from metaflowkit.errors import ConfigError, Interrupted, MetaflowkitError
from metaflowkit.search.specification import Search
from metaflowkit.search.storage import experimental
from metaflowkit.search.trial import Lost, TrialEnd, Watch, run_trial
from metaflowkit.search.trial_queue import ATTEMPT, ENDED, GOES_ON, REQUEUED, Lease, TrialQueue
from metaflowkit.seeding import seed_for
from metaflowkit.training.signals import on_stop

TRIALS = "trials"


def work(search: Search, queue: TrialQueue, folder: Path, index: int | None = None, tell: Callable[[str], None] = print) -> None:
    """Work on a study until no trial is queued or running, or until a signal.

    Args:
        search: what is searched.
        queue: the study's trials.
        folder: of the study, where run directories are made.
        index: which of several local workers this is; None for one that joined by itself.
        tell: gets a line about every trial.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the trial is saved and queued.
        MetaflowkitError: an error that would stop every trial; this one is re-queued.
    """
    worker = f"{socket.gethostname()}/{os.getpid()}"
    finished_count = len(queue.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    purpose = f"search/{worker if index is None else index}"
    seed = seed_for(search.settings.seed, purpose, finished_count) % 2**32  # another seed in a continued study, so that draws are not repeated
    with experimental():
        sampler = registry.SAMPLERS.build(search.settings.sampler, seed=seed)
        pruner = registry.PRUNERS.build(search.settings.pruner, outer_steps=search.pipeline.outer.steps)
    for key, component, base in (("sampler", sampler, optuna.samplers.BaseSampler), ("pruner", pruner, optuna.pruners.BasePruner)):
        if not isinstance(component, base):  # Optuna would silently take its default
            raise ConfigError(f"{key}: must be one of Optuna's {key}s, got {type(component).__name__}; return an optuna.{key}s.{base.__name__}")
    stopped = threading.Event()
    signal_names: list[str] = []

    def stop(name: str) -> None:
        signal_names.append(name)
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
                tell(f"trial {trial.number}: {_run(search, queue, study, trial, folder, lease)}")
    raise Interrupted("stopped, while no trial ran", signal_names[0])


def _run(search: Search, queue: TrialQueue, study: optuna.Study, trial: optuna.Trial, folder: Path, lease: Lease) -> str:
    """Run a trial and say how it ended."""
    started = time.monotonic()
    goes_on, spent = _earlier(queue, folder, trial)
    watch = Watch(trial, lease, search, spent)
    try:
        end = run_trial(search, trial, run_folder(folder, trial.number), watch, goes_on)
        if lease.lost.is_set():
            raise Lost
        _record(study, trial, end, search, time.monotonic() - started + spent)
        return end.reason or "complete"
    except (Lost, UpdateFinishedTrialError):
        return "taken away, since this worker did not answer in time"
    except Interrupted:
        trial.set_user_attr("seconds", watch.costs()["seconds"])
        queue.give_back(trial.number, "stopped and saved", counted=False)
        raise Interrupted(f"trial {trial.number}: stopped and saved; go on with the same command") from None
    except Exception as error:
        queue.give_back(trial.number, str(error) if isinstance(error, MetaflowkitError) else f"{type(error).__name__}: {error}", counted=True)
        raise


def _record(study: optuna.Study, trial: optuna.Trial, end: TrialEnd, search: Search, seconds: float) -> None:
    for name, value in end.metrics.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("search seconds", seconds - end.metrics.get("seconds", 0.0))
    trial.set_user_attr(ENDED, end.reason)
    for name, limit in search.settings.limits.set().items():
        trial.set_constraint(name, end.metrics.get(name, limit) - limit)
    values = [end.metrics.get(metric) for metric in search.metrics]
    complete = end.state == TrialState.COMPLETE and None not in values
    study.tell(trial, values if complete else None, None if complete else TrialState.PRUNED)  # type: ignore[arg-type]


def run_folder(folder: Path, number: int) -> Path:
    """The run directory of a trial."""
    return folder / TRIALS / f"{number:04d}"


def _earlier(queue: TrialQueue, folder: Path, trial: optuna.Trial) -> tuple[Path | None, float]:
    """The run that a trial goes on with, and its seconds: one that was stopped and saved, not one whose worker may still be running."""
    number = trial.user_attrs.get(GOES_ON)
    if number is None:
        return None, 0.0
    attributes = queue.trial(number).user_attrs
    saved = attributes[REQUEUED] == attributes.get(ATTEMPT, 0)
    return (run_folder(folder, number), attributes["seconds"]) if saved else (None, 0.0)


def end_with(parent: int) -> None:
    """Send this process SIGTERM once its parent has ended."""

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(2.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch_parent, daemon=True).start()
