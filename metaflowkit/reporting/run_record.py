"""What a run directory says of its run, whether it has come to its end or not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaflowkit.config.types import Pipeline
from metaflowkit.evaluation.scores import paired
from metaflowkit.reporting.report import Report
from metaflowkit.training import checkpoint
from metaflowkit.training.final_scores import is_finished, read_final_scores
from metaflowkit.training.metric_log import MetricLog, resume_command
from metaflowkit.training.run_directory import Run
from metaflowkit.training.signs import SIGN


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says of its run.

    Attributes:
        folder: the directory.
        pipeline: resolved.
        lines: of the metric log.
        report: of the run's end, without its duration where it is read from disk; None before the end.
        facts: of ``run.json``: versions, command, start.
        state: in words, how far the run has come.
    """

    folder: Path
    pipeline: Pipeline
    lines: Sequence[dict[str, Any]]
    report: Report | None
    facts: dict[str, Any]
    state: str

    @property
    def name(self) -> str:
        """Of the directory, by which runs are told apart."""
        return self.folder.name or str(self.folder.resolve().name)

    @property
    def signs(self) -> list[tuple[int, str, str]]:
        """The signs of failure that the run has shown: step, name, text."""
        return [(line["step"], str(line[SIGN]), str(line["text"])) for line in self.lines if SIGN in line]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric; values that are not finite are left out."""
        pairs = [(line["step"], line[key]) for line in self.lines if key in line and isinstance(line[key], int | float) and math.isfinite(line[key])]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @property
    def measured(self) -> list[str]:
        """The names of the metrics of outer steps, in the order in which they appear."""
        return list(dict.fromkeys(key for line in self.lines for key in line if key.startswith("train/")))


def record_of(run: Run, pipeline: Pipeline, report: Report) -> RunRecord:
    """The record of a run that has just come to its end."""
    return RunRecord(run.folder, pipeline, run.metric_log.read(), report, _facts(run), _finished(pipeline, report.seconds))


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run from its directory.

    Raises:
        RunError: the folder is no run directory.
        ConfigError: its pipeline has components that cannot be found here.
    """
    run = Run(folder)
    pipeline, lines = run.pipeline(), run.metric_log.read()
    report = _read_report(run, pipeline) if is_finished(folder) else None
    if report is not None:
        return RunRecord(folder, pipeline, lines, report, _facts(run), _finished(pipeline))
    step = max((line["step"] for line in lines), default=0)
    state = f"not finished: {step} of {pipeline.outer.steps} outer steps; go on with {resume_command(folder)}"
    return RunRecord(folder, pipeline, lines, None, _facts(run), state)


def _finished(pipeline: Pipeline, seconds: float = 0.0) -> str:
    return f"finished: {pipeline.outer.steps} outer steps" + f" in {seconds:.0f} s" * (seconds > 0)


def _facts(run: Run) -> dict[str, Any]:
    path = run.folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _read_report(run: Run, pipeline: Pipeline) -> Report:
    """The report of a finished run, without its duration."""
    scores = read_final_scores(run.folder, pipeline.metric).scores
    both = [by_weights for by_weights in scores.values() if {"untrained", "best"} <= set(by_weights)]
    before, after = ([by_weights[weights] for by_weights in both] for weights in ("untrained", "best"))
    protocols = [line["protocol"] for line in MetricLog(run.folder / "evaluations.jsonl").read() if line["weights"] == "best"]
    snapshot = checkpoint.load(checkpoint.saved(run.checkpoints)[-1]) if checkpoint.saved(run.checkpoints) else None
    best, untrained, episodes = (snapshot.best, snapshot.untrained, snapshot.episodes) if snapshot is not None else (None, None, {})
    validation = paired(episodes.get("untrained", []), episodes.get("best", []), pipeline.metric)
    text = protocols[0] if protocols else ""
    return Report(run.folder, before, after, best, untrained, 0.0, text, "", validation, pipeline.metric)
