"""The table of metrics: what the run's own metric log holds, once each, also after a resume."""

from __future__ import annotations

import csv
import json

from metaflowkit.config.pipeline import read
from metaflowkit.reporting.train import train
from tests.small import SMALL


def test_the_table_holds_every_metric_of_every_step_also_after_a_resume(write, tmp_path) -> None:
    pipeline = read(write(SMALL), ["loggers=[csv]"])
    train(pipeline, tmp_path / "run")
    table = (tmp_path / "run" / "metrics.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        for key, value in json.loads(line).items():
            assert rows[json.loads(line)["step"]][key] == str(value)
    assert rows[1]["val/accuracy"] == ""
    (tmp_path / "run" / "checkpoints" / "step-0000004.pt").unlink()
    train(pipeline, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.csv").read_text() == table


def test_without_one_there_is_no_table(write, tmp_path) -> None:
    train(read(write(SMALL), ["outer.steps=1"]), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()
