"""One trial: a run in its own directory, which reports to the study and may be ended early."""

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
    """Another worker has the trial by now, or the storage does not answer."""


class TrialEnd(NamedTuple):
    """How a trial ended.

    Attributes:
        state: complete or pruned.
        reason: in words; empty where it ran to its end.
        metrics: those that were measured, by name.
    """

    state: TrialState
    reason: str
    metrics: dict[str, float]


class Watch:
    """Reports every validation to the study, and decides whether the trial ends early.

    Args:
        trial: of the study.
        lease: on the trial, which another worker may take over.
        search: what is searched.
        spent: seconds that an earlier part of the run took.
    """

    def __init__(self, trial: optuna.Trial, lease: Lease, search: Search, spent: float) -> None:
        self.trial, self.lease = trial, lease
        self.limit = search.settings.limits.seconds
        self.pruning = len(search.metrics) == 1 and search.pruning["prunes"]
        self.grouped = search.pruning["reads_episodes"]
        self.metric = f"val/{search.pipeline.metric.name}"
        self.started = time.monotonic() - spent
        self.steps = 0
        self.device: torch.device | None = None
        self.base_memory = 0.0

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        """The run begins; of a resumed run the earlier validations are reported again, since an earlier trial received them.

        Raises:
            DataError: nothing can be validated.
        """
        if not flow.has("val"):
            raise DataError("dataset: has no validation classes, and a search chooses by them; let the data set keep some")
        self.steps = steps
        self.device, self.base_memory = flow.device, peak_memory(reset=True, device=flow.device)
        for line in MetricLog(folder / "metrics.jsonl").read():
            if line["step"] and self.metric in line and self.pruning and not self.grouped:
                self.trial.report(line[self.metric], line["step"])

    def judge(self, step: int, score: Score) -> str | None:
        """Why the trial should end at a validation, in words; None where it should go on."""
        if not step:
            return None
        if self.pruning:
            for report_step, value in self._values(step, score):
                self.trial.report(value, report_step)
            if step < self.steps and self.trial.should_prune():  # at the end pruning saves nothing
                return f"pruned at outer step {step}"
        if self.limit is not None and time.monotonic() - self.started > self.limit:
            return f"over its {self.limit:g} seconds at outer step {step}"
        return None

    def costs(self) -> dict[str, float]:
        """The costs of the trial so far: seconds, and MiB once training has begun."""
        memory = {} if self.device is None else {"memory": (peak_memory(device=self.device) - self.base_memory) / 2**20}
        return {"seconds": time.monotonic() - self.started, **memory}

    def _values(self, step: int, score: Score) -> list[tuple[int, float]]:
        if not self.grouped:
            return [(step, score.value)]
        groups = [score.each[i : i + GROUP] for i in range(0, len(score.each), GROUP)]
        return [(step * 1000 + i, sum(group) / len(group)) for i, group in enumerate(groups)]


def run_trial(search: Search, trial: optuna.Trial, folder: Path, watch: Watch, goes_on: Path | None) -> TrialEnd:
    """Train the pipeline of a trial, without its test classes.

    Args:
        search: what is searched.
        trial: of the study.
        folder: the trial's run directory.
        watch: of the trial.
        goes_on: the directory of an earlier trial whose run goes on here.

    Raises:
        Lost: the trial is not this worker's any more.
        MetaflowkitError: errors that do not depend on the trial's settings, such as a full disk or Ctrl-C.
    """
    try:
        pipeline = search.at(suggest(trial, search.axes))
    except ConfigError as error:
        return TrialEnd(TrialState.PRUNED, f"no possible pipeline: {error.problems[0]}", {})
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
                        end_reason = watch.judge(event.step, event.score)
                        if end_reason is not None:
                            return TrialEnd(TrialState.PRUNED, end_reason, watch.costs())
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
    return TrialEnd(state, reason, metrics | watch.costs())
