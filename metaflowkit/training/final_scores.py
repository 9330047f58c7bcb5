"""The test scores of a finished run, read from its directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaflowkit.config.metric import Metric
from metaflowkit.config.yaml import read_yaml
from metaflowkit.evaluation.scores import Score
from metaflowkit.training.metric_log import MetricLog


@dataclass(frozen=True)
class FinalScores:
    """The test scores of a finished run.

    Attributes:
        episode_source: what its episodes depend on besides the setting.
        scores: those of ``evaluations.jsonl`` by setting in words, then by weights, ``untrained`` and ``best``.
    """

    episode_source: tuple[Any, ...]
    scores: dict[str, dict[str, Score]]


def is_finished(run: Path) -> bool:
    """Whether a run has come to its end."""
    return (run / "report.md").is_file()


def read_final_scores(run: Path, metric: Metric) -> FinalScores:
    """The scores that the run measured at its end, not those of repeated measurements.

    Args:
        run: its directory.
        metric: what it measured.
    """
    pipeline = read_yaml(run / "pipeline.yaml").plain()
    scores: dict[str, dict[str, Score]] = {}
    for line in MetricLog(run / "evaluations.jsonl").read():
        if line["split"] == "test" and line["weights"] in ("untrained", "best") and "overrides" not in line:  # which repeated measurements have
            score = Score.read(line, metric)
            scores.setdefault(str(score.setting), {}).setdefault(line["weights"], score)
    return FinalScores((pipeline["dataset"], pipeline["tasks"]["name"], pipeline["evaluate"]["seed"]), scores)
