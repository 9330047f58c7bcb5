"""One trial: a run directory of its own, watched by the study, which may end it early."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import optuna
import torch
from optuna.trial import TrialState

from metaflowkit.composition.flow import Flow
from metaflowkit.errors import ConfigError, DataError, DivergenceError
from metaflowkit.evaluation.scores import Score
from metaflowkit.memory import out_of_memory, peak_memory
from metaflowkit.search.distributions import suggest
from metaflowkit.search.specification import Search
from metaflowkit.search.trial_queue import Lease
from metaflowkit.training.events import Finished, Started, Stepped, Validated
from metaflowkit.training.loop import events
from metaflowkit.training.metric_log import MetricLog

GROUP = 10  # validation episodes whose mean is one value of the signed-rank test


class Lost(Exception):
    """Another worker has the trial by now, or the storage is gone."""


class Ended(NamedTuple):
    """How a trial ended.

    Attributes:
        state: complete or pruned.
        reason: in words; empty where it ran to its end.
        metrics: what is known of each metric.
    """

    state: TrialState
    reason: str
    metrics: dict[str, float]


class Watch:
    """Tells the study of every validation, and says where it has seen enough.

    Args:
        trial: of the study.
        lease: whether it is still this worker's.
        search: what is searched.
        spent: seconds that an earlier part of the run took.
    """

    def __init__(self, trial: optuna.Trial, lease: Lease, search: Search, spent: float) -> None:
        self.trial, self.lease = trial, lease
        self.limit = search.settings.limits.seconds
        self.pruning = len(search.metrics) == 1 and search.settings.pruner.name != "none"
        self.grouped = search.settings.pruner.name == "wilcoxon"
        self.metric = f"val/{search.pipeline.metric.name}"
        self.started = time.monotonic() - spent
        self.steps = 0
        self.device: torch.device | None = None
        self.held = 0.0

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        """The run begins; one that goes on has told another trial of its past.

        Raises:
            DataError: nothing can be validated.
        """
        if not flow.has("val"):
            raise DataError("dataset: has no validation classes, and a search chooses by them; let the data set keep some")
        self.steps = steps
        self.device, self.held = flow.device, peak_memory(reset=True, device=flow.device)
        for line in MetricLog(folder / "metrics.jsonl").read():
            if line["step"] and self.metric in line and self.pruning and not self.grouped:
                self.trial.report(line[self.metric], line["step"])

    def judge(self, step: int, score: Score) -> str | None:
        """Why the trial should end at a validation, in words; None where it should go on."""
        if not step:
            return None
        if self.pruning:
            for at, value in self._values(step, score):
                self.trial.report(value, at)
            if step < self.steps and self.trial.should_prune():  # at the end there is nothing left to save
                return f"pruned at outer step {step}"
        if self.limit is not None and time.monotonic() - self.started > self.limit:
            return f"over its {self.limit:g} seconds at outer step {step}"
        return None

    def costs(self) -> dict[str, float]:
        """Seconds, and where training began MiB, that the trial took until now."""
        memory = {} if self.device is None else {"memory": (peak_memory(device=self.device) - self.held) / 2**20}
        return {"seconds": time.monotonic() - self.started, **memory}

    def _values(self, step: int, score: Score) -> list[tuple[int, float]]:
        if not self.grouped:
            return [(step, score.value)]
        groups = [score.each[i : i + GROUP] for i in range(0, len(score.each), GROUP)]
        return [(step * 1000 + i, sum(group) / len(group)) for i, group in enumerate(groups)]


def run_trial(search: Search, trial: optuna.Trial, folder: Path, watch: Watch, goes_on: Path | None) -> Ended:
    """Train the pipeline of a trial, without its test classes.

    Args:
        search: what is searched.
        trial: of the study.
        folder: the trial's run directory.
        watch: of the trial.
        goes_on: the directory of an earlier trial whose run goes on here.

    Raises:
        Lost: the trial is not this worker's any more.
        MetaflowkitError: what has nothing to do with the trial's settings, such as a full disk or Ctrl-C.
    """
    try:
        pipeline = search.at(suggest(trial, search.axes))
    except ConfigError as error:
        return Ended(TrialState.PRUNED, f"no possible pipeline: {error.problems[0]}", {})
    if goes_on is not None and (goes_on / "pipeline.yaml").is_file() and not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        goes_on.rename(folder)
    metrics: dict[str, float] = {}
    state, reason = TrialState.COMPLETE, ""
    try:
        with closing(events(pipeline, folder, resume=(folder / "pipeline.yaml").is_file(), test=False)) as training:
            for event in training:
                match event:
                    case Started():
                        watch.start(event.folder, event.flow, event.steps)
                    case Stepped() if watch.lease.lost.is_set():
                        raise Lost
                    case Validated():
                        ended = watch.judge(event.step, event.score)
                        if ended is not None:
                            return Ended(TrialState.PRUNED, ended, watch.costs())
                    case Finished() if event.best is not None:
                        metrics[f"val/{pipeline.metric.name}"] = event.best["value"]
    except DivergenceError as error:
        state, reason = TrialState.PRUNED, f"diverged: {error}"
    except ConfigError as error:
        state, reason = TrialState.PRUNED, f"cannot be built: {error.problems[0]}"
    except (MemoryError, RuntimeError) as error:  # torch's own are RuntimeErrors
        if not out_of_memory(error):
            raise
        state, reason = TrialState.PRUNED, f"out of memory: {(str(error) or 'on the CPU').splitlines()[0]}"
    return Ended(state, reason, metrics | watch.costs())
