"""Every metric logger takes every event of a run, and keeps what it writes in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

import metaflowkit as mfk
from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.training.events import Event
from metaflowkit.training.loop import events

TINY = {
    "device": "cpu",
    "tasks": {"name": "sinusoid", "shot": 3, "query": 3, "meta_batch": 2},
    "model": {"backbone": {"name": "mlp", "widths": [4]}, "head": "linear"},
    "inner": {"loss": "task", "steps": 1},
    "objective": "query_loss",
    "outer": {"steps": 2},
    "evaluate": {"every": 1, "shot": [3], "steps": [0, 1], "episodes": 2, "val_episodes": 2},
}


def files(folder: Path) -> dict[Path, int]:
    """The files of a folder with the times of their last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(set(METRIC_LOGGERS.entries()) - {"wandb"}))  # whose client is not installed; it has a test of its calls
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's database layer
def test_every_event_is_taken_and_nothing_is_written_outside_the_run(name, tmp_path, monkeypatch) -> None:
    for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run, logger, taken, written = tmp_path / "run", METRIC_LOGGERS.build(Choice(name)), set(), set()
    for event in events(mfk.pipeline(TINY), run_dir=run):
        before = files(tmp_path)
        logger.log(event)
        written |= {path for path, time in files(tmp_path).items() if before.get(path) != time}
        taken.add(type(event))
    assert taken == set(get_args(Event))
    assert written  # by the end of the run
    assert all(path.is_relative_to(run) for path in written)
    assert not written & {run / own for own in ("metrics.jsonl", "evaluations.jsonl", "pipeline.yaml")}
