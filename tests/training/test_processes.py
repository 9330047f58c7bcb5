"""Whole runs whose tasks several processes share."""

from __future__ import annotations

import json

import pytest

from metaflowkit.config.pipeline import read
from metaflowkit.distributed import processes
from metaflowkit.distributed.world import EndedElsewhere, World
from metaflowkit.errors import ConfigError, Interrupted, RunError
from metaflowkit.reporting.train import train
from metaflowkit.training.outer_loop import OuterLoop
from tests import small
from tests.distributed.group import run_in_group
from tests.training.test_loop import EXACT

TASKS = small.SMALL.replace("meta_batch: 1", "meta_batch: 4").replace("steps: 4", "steps: 6")
SINUSOIDS = """
tasks: {name: sinusoid, meta_batch: 4}
model: {backbone: {name: mlp, widths: [8, 8]}, head: linear}
inner: {steps: 1, loss: task}
objective: query_loss
outer: {steps: 6}
evaluate: {every: 3, episodes: 50, val_episodes: 45, steps: [0, 1]}
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(processes, "SETTLING", 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (SINUSOIDS, [1, 2, 4]),
        (TASKS.replace(" episodes: 4", " episodes: 50"), [1, 2, 4]),
    ],
    ids=["sinusoids", "views"],
)
def test_an_ordered_run_is_the_same_to_the_bit_with_1_2_and_4_processes(text, sizes, write, tmp_path) -> None:
    pipeline = read(write(text), ["outer.reduction=ordered"])
    alone = train(pipeline, tmp_path / "0").plain()
    for size in sizes:
        reports = run_in_group(size, lambda world, size=size: train(pipeline, tmp_path / f"{size}", world=world).plain())
        for report in reports:
            assert {k: v for k, v in report.items() if k not in ("run", "seconds")} == {k: v for k, v in alone.items() if k not in ("run", "seconds")}
        for name in (*EXACT, "evaluations.jsonl", "report.md"):
            assert (tmp_path / "0" / name).read_bytes() == (tmp_path / f"{size}" / name).read_bytes(), name


def test_a_run_goes_on_with_another_number_of_processes(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(TASKS), ["outer.reduction=ordered"])
    train(pipeline, tmp_path / "whole")
    advance = OuterLoop.advance

    def stopped(self) -> None:
        if self.step == 2 and self.world.rank == self.world.size - 1:  # the request reaches one process alone
            self.stop.ask("SIGTERM")
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", stopped)
    results = run_in_group(2, lambda world: train(pipeline, tmp_path / "cut", world=world))
    assert type(results[0]) is Interrupted
    assert f"{tmp_path / 'cut'}: stopped by SIGTERM after step 3, all is saved; go on with" in str(results[0])
    assert type(results[1]) is EndedElsewhere
    assert {result.exit_code for result in results} == {143}
    monkeypatch.setattr(OuterLoop, "advance", advance)
    train(pipeline, tmp_path / "cut", resume=True)
    for name in EXACT:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "inner.steps=2",
            "process 1 on HOST: has another pipeline than process 0: inner.steps is 2 there and 1 here; start all processes with the same pipeline and settings",
        ),
    ],
)
def test_processes_with_different_pipelines_are_refused(other, message, write, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "HOST")
    pipelines = [read(write(TASKS)), read(write(TASKS), [other])]
    results = run_in_group(2, lambda world: train(pipelines[world.rank], tmp_path / "run", world=world))
    assert (type(results[0]), str(results[0]), type(results[1])) == (RunError, message, EndedElsewhere)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        ("metaflowkit.training.agreement.versions", lambda real: lambda: {**real(), "torch": "1.0"}, "has other versions than"),
        ("metaflowkit.training.agreement._sampled", lambda real: lambda examples: "other", "has other data than process 0: the split val is other there and"),
    ],
)
def test_processes_with_different_surroundings_are_refused(target, change, message, write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(TASKS))

    def run(world: World):
        if world.rank == 1:
            module, _, name = target.rpartition(".")
            module = __import__(module, fromlist=[name])
            setattr(module, name, change(getattr(module, name)))
        return train(pipeline, tmp_path / "run", world=world)

    results = run_in_group(2, run)
    assert message in str(results[0])
    assert type(results[1]) is EndedElsewhere
    assert not (tmp_path / "run").exists()


def test_more_processes_than_tasks_are_refused(write, tmp_path) -> None:
    pipeline = read(write(TASKS), ["tasks.meta_batch=2"])
    results = run_in_group(3, lambda world: train(pipeline, tmp_path / "run", world=world))
    assert type(results[0]) is ConfigError
    assert str(results[0]).endswith("tasks: 3 processes cannot share 2 tasks; start at most 2, or raise the tasks of an outer step")
    assert [type(result) for result in results[1:]] == [EndedElsewhere] * 2
    assert not (tmp_path / "run").exists()


def test_weights_that_drift_apart_are_noticed_when_they_are_saved(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(TASKS))
    advance = OuterLoop.advance

    def drifting(self) -> None:
        if self.step == 2 and self.world.rank == 1:
            next(iter(self.parameters.values())).data.add_(1e-6)
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", drifting)
    results = run_in_group(2, lambda world: train(pipeline, tmp_path / "run", world=world))
    assert "process 1: its weights are no longer those of process 0, first backbone." in str(results[0])
    assert type(results[1]) is EndedElsewhere
    assert not (tmp_path / "run/checkpoints/step-0000004.pt").exists()


def test_a_full_disk_in_the_first_process_ends_all(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(TASKS))
    save = OuterLoop._write

    def full(self, path) -> None:
        if self.step == 4:
            raise RunError(f"{path}: cannot be written (No space left on device); free space or choose another place, earlier files are whole")
        save(self, path)

    monkeypatch.setattr(OuterLoop, "_write", full)
    results = run_in_group(2, lambda world: train(pipeline, tmp_path / "run", world=world))
    assert "No space left on device" in str(results[0])
    assert type(results[1]) is EndedElsewhere
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").glob("step*"))] == ["step-0000000.pt", "step-0000002.pt"]


@pytest.mark.slow
def test_a_process_that_the_launcher_restarts_goes_on(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(TASKS))
    train(pipeline, tmp_path / "whole")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
    advance = OuterLoop.advance

    def failing(self) -> None:
        if self.step == 3:
            raise RunError("lost")
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", failing)
    with pytest.raises(RunError, match="lost"):
        train(pipeline, tmp_path / "cut")
    monkeypatch.setattr(OuterLoop, "advance", advance)
    train(pipeline, tmp_path / "cut", overwrite=True)  # the command is the one that started it
    lines = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/objective" in line] == [1, 2, 3, 4, 5, 6]
    for name in EXACT:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "of another launch")
    with pytest.raises(RunError, match="is not empty"):
        train(pipeline, tmp_path / "cut")
