"""An objective that is a dataclass, from the check to the report, by the command line."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from metaflowkit.cli import main

PIPELINE = """
device: cpu
plugins: [tests.outside.objectives]
dataset: {name: digits, image_size: 8, fractions: {train: 0.4, val: 0.3, test: 0.3}}
augment: []
tasks: {name: labelled, way: 3, shot: 1, query: 2, meta_batch: 1}
model: {backbone: {name: mlp, widths: [8]}, head: linear}
inner: {loss: cross_entropy, steps: 1}
objective: {name: outside_smoothed, temperature: 0.5}
outer: {steps: 1}
evaluate: {every: 1, way: 3, query: 2, episodes: 4, val_episodes: 4, readouts: [prototype]}
"""


def mfk(*command: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in command])
    assert result.exit_code == code, result.output
    return result.output


def metrics(run) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if "train/objective" in line)


def test_the_fields_of_a_dataclass_are_settings_and_arrive(write, tmp_path) -> None:
    path = write(PIPELINE)
    listed = mfk("components", "objective", "outside_smoothed", "--pipeline", path)
    for text in ("temperature", "share of the labels' mass that all classes get", "0.25", "[1.0, 2.0]"):
        assert text in listed
    mfk("run", path, "--run-dir", tmp_path / "run")
    resolved = yaml.safe_load((tmp_path / "run" / "pipeline.yaml").read_text())["objective"]
    assert resolved == {"name": "outside_smoothed", "temperature": 0.5, "smoothing": 0.25, "scales": [1.0, 2.0]}
    smoothed = metrics(tmp_path / "run")
    assert (smoothed["train/temperature"], smoothed["train/smoothing"]) == (0.5, 0.25)
    mfk("run", path, "--run-dir", tmp_path / "plain", "--set", "objective={name: outside_smoothed, smoothing: 0.0, scales: [3.0]}")
    plain = metrics(tmp_path / "plain")
    assert plain["train/objective"] == pytest.approx(3 * plain["train/plain"], rel=1e-6)
    assert plain["train/plain"] == smoothed["train/plain"]  # the same task and weights
    assert smoothed["train/objective"] != pytest.approx(2 * smoothed["train/plain"], rel=1e-3)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("temperature: -1.0", "objective.temperature: must be a number above 0, got -1.0"),
        ("scales: [1.0, no]", "objective.scales.1: must be a number, got 'no'"),
        ("smoothin: 0.1", "objective.smoothin: objective 'outside_smoothed' has no such setting; did you mean 'smoothing'?"),
    ],
)
def test_its_fields_are_checked(write, setting, says) -> None:
    output = mfk("check", write(PIPELINE.replace("temperature: 0.5", setting)), code=2)
    assert says in output
