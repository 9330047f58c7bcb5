"""Weights & Biases, by the calls that its client receives: the server is not there to be asked."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.reporting.train import train
from tests.small import SMALL


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, dict]]:
    made: list[tuple[str, dict]] = []

    def init(**arguments):
        made.append(("init", arguments))
        return SimpleNamespace(
            id=arguments["id"] or "abc",
            log=lambda metrics: made.append(("log", metrics)),
            define_metric=lambda name, step_metric: made.append(("define", {name: step_metric})),
            finish=lambda: made.append(("finish", {})),
        )

    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made


def test_calls_of_a_run_and_of_its_resumption(calls, write, tmp_path) -> None:
    pipeline = read(write(SMALL), ["loggers=[{name: wandb, project: mine, mode: offline}]"])
    train(pipeline, tmp_path / "run")
    (first, arguments), *_, (last, _) = calls
    assert (first, last) == ("init", "finish")
    assert (arguments["project"], arguments["mode"], arguments["name"], arguments["id"]) == ("mine", "offline", "run", None)
    assert arguments["config"]["inner"]["steps"] == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    sent = [metrics for name, metrics in calls if name == "log"]
    for key in ("train/objective", "val/accuracy"):
        assert [(m["outer_step"], m[key]) for m in sent if key in m] == [(line["step"], line[key]) for line in lines if key in line]
    assert any(key.startswith("test/3w1s prototype/trained") for key in sent[-1])
    (tmp_path / "run" / "checkpoints" / "step-0000004.pt").unlink()
    calls.clear()
    train(pipeline, tmp_path / "run", resume=True)
    assert calls[0][1]["id"] == "abc"


def test_without_wandb_one_line_says_so(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"loggers\.0: needs wandb, which is not installed; pip install 'metaflowkit\[wandb\]'$"):
        train(read(write(SMALL), ["loggers=[wandb]"]), tmp_path / "run")
