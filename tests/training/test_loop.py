"""A small run on glyphs: resumed runs write the same bytes, divergence is named and saved, the best weights are kept."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import DivergenceError, Interrupted
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score
from metaflowkit.reporting.report import Report
from metaflowkit.reporting.train import train
from metaflowkit.training import checkpoint
from metaflowkit.training.outer_loop import OuterLoop
from tests import small

SMALL = small.SMALL.replace("steps: 4", "steps: 6")
EXACT = ("metrics.jsonl", "checkpoints/best.pt", "checkpoints/step-0000006.pt")


def test_a_run_repeats_itself_and_a_resumed_one_equals_it(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(SMALL), ["objective.ema=0.9"])  # whose moving average is a further part of the state
    train(pipeline, tmp_path / "whole")
    advance = OuterLoop.advance

    def killed(self) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", killed)
    with pytest.raises(Interrupted, match="stopped at once by SIGINT, all is saved up to step 2"):
        train(pipeline, tmp_path / "cut")
    monkeypatch.setattr(OuterLoop, "advance", advance)
    torch.rand(7)  # the state of the global generator must not matter
    train(pipeline, tmp_path / "cut", resume=True)
    for name in EXACT:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize("damage", ["model", "objective"])
def test_divergence_names_the_step_and_the_parameter_and_saves_what_is_good(damage, write, tmp_path, monkeypatch) -> None:
    advance = OuterLoop.advance

    def poisoned(self) -> None:
        if self.step == 3 and damage == "model":
            with torch.no_grad():
                self.parameters["backbone.blocks.1.conv.weight"].fill_(float("inf"))
        if self.step == 3 and damage == "objective":
            outcome = self.flow.learner.outcome
            object.__setattr__(self.flow, "learner", _Poisoned(self.flow.learner, outcome))
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", poisoned)
    with pytest.raises(DivergenceError) as caught:
        train(read(write(SMALL)), tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("outer step 4: the meta-gradient is not finite, first in backbone.blocks.")
    restart = f"mfk run {tmp_path / 'run' / 'pipeline.yaml'} --set outer.optimizer.lr=0.0001"
    measure = f"mfk evaluate {tmp_path / 'run'} --weights last"
    assert f"; lower inner.rule.lr, inner.steps or outer.optimizer.lr, such as with {restart}; the last good state is saved in " in message
    assert message.endswith(f"; measure it with {measure}")
    monkeypatch.setattr(OuterLoop, "advance", advance)
    monkeypatch.chdir(tmp_path)
    for command in (measure, restart):
        assert CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False).exit_code == 0
    (again,) = (tmp_path / "runs").iterdir()
    assert read(again / "pipeline.yaml").outer.optimizer.settings["lr"] == 1e-4
    last = checkpoint.saved(tmp_path / "run" / "checkpoints")[-1]
    assert str(last) in message
    assert checkpoint.load(last).step == (2 if damage == "model" else 3)
    assert all(value.isfinite().all() for value in checkpoint.load(last).model.values())


class _Poisoned:
    """A learner one of whose gradients is not a number."""

    def __init__(self, learner, outcome) -> None:
        self.model, self.inner = learner.model, outcome

    def outcome(self, episode):
        outcome = self.inner(episode)
        outcome.gradients["backbone.blocks.1.norm.weight"] = outcome.gradients["backbone.blocks.1.norm.weight"] * float("nan")
        return outcome


def test_gradients_are_clipped_to_the_norm_and_the_schedule_sets_the_rate(write, tmp_path) -> None:
    seen = {}
    for clip in ("1e-3", "null"):
        run = tmp_path / clip
        train(read(write(SMALL), ["outer.optimizer={name: sgd, lr: 1.0, momentum: 0.0}", f"outer.clip={clip}", "outer.steps=1"]), run)
        line = next(json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines() if "train/objective" in x)
        start = _untrained(read(write(SMALL)))
        end = checkpoint.load(run / "checkpoints" / "step-0000001.pt").model
        moved = sum((end[n] - start[n]).double().square().sum() for n in start).sqrt().item()
        seen[clip] = (moved, line["train/gradient_norm"])
    assert seen["1e-3"][0] == pytest.approx(1e-3, rel=1e-3)
    assert seen["null"][0] == pytest.approx(seen["null"][1], rel=1e-4)
    assert seen["null"][1] > 1e-3


def test_the_target_starts_from_the_moving_average_of_the_initialisation(write, tmp_path) -> None:
    values, decay = {}, 0.7
    for ema in ("null", "0", str(decay)):
        pipeline = read(write(SMALL), [f"objective.ema={ema}", "outer.steps=3", "outer.save_every=1", "evaluate.every=3"])
        train(pipeline, tmp_path / ema, test=False)
        lines = [json.loads(line) for line in (tmp_path / ema / "metrics.jsonl").read_text().splitlines()]
        values[ema] = [line["train/objective"] for line in lines if "train/objective" in line]
    assert values["0"] == pytest.approx(values["null"], rel=1e-3)  # an average that is the initialisation itself
    assert values["0.7"][0] == pytest.approx(values["null"][0], rel=1e-3)
    assert abs(values["0.7"][1] / values["null"][1] - 1) > 0.01
    before, after = (checkpoint.load(path) for path in checkpoint.saved(tmp_path / "0.7" / "checkpoints"))
    assert after.average.keys() == dict(build(pipeline).learner.model.named_parameters()).keys()
    for name, value in after.average.items():
        torch.testing.assert_close(value, decay * before.average[name] + (1 - decay) * after.model[name])


def _untrained(pipeline):
    from metaflowkit.composition.learner import Interface, build_learner

    return build_learner(pipeline, Interface((1, 28, 28), pipeline.tasks.settings["way"]), torch.device("cpu")).model.state_dict()


def test_a_run_keeps_the_best_of_its_validations_and_what_it_was_before(write, tmp_path) -> None:
    report = train(read(write(SMALL), ["evaluate.val_episodes=20"]), tmp_path / "run")
    validated = [json.loads(line)["val/accuracy"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if "val/accuracy" in line]
    assert len(set(validated)) > 1
    assert report.untrained == validated[0]
    assert report.best is not None
    assert report.best["value"] == max(validated[1:])


def _score(shot: int, accuracy: float) -> Score:
    each = tuple(accuracy + 0.02 * (-1) ** i for i in range(200))
    return Score("test", FewShot(5, shot, 15, "prototype"), ACCURACY, 200, accuracy, 0.003, each)


def test_the_report_warns_of_what_training_made_worse_and_of_nothing_else(tmp_path) -> None:
    before, after = [_score(1, 0.8), _score(5, 0.5)], [_score(1, 0.4), _score(5, 0.9)]
    report = Report(tmp_path, before, after, None, None, 1.0, "", "")
    (line,) = report.worse()
    assert "5w1s prototype" in line
    assert "80.0" in line
    assert "40.0" in line
    assert "WARNING: training made the network WORSE than it was before the first step:" in report.lines()
    assert f"  {line}" in report.lines()
    assert "made the network worse" in report.markdown()
    for good in (dataclasses.replace(report, before=after, after=after), dataclasses.replace(report, before=before[1:], after=after[1:])):
        assert good.worse() == []
        assert "WORSE" not in "\n".join(good.lines())
        assert "worse" not in good.markdown()


@pytest.mark.slow
def test_kill_at_random_moments_and_resume_gives_the_same_files(write, tmp_path) -> None:
    """kill -9 three times at random moments of one run; an uninterrupted run is the oracle."""
    path = write(SMALL)
    more = ["--set", "outer.steps=120", "--set", "evaluate.every=20", "--set", "outer.save_every=7", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}

    def command(run: Path, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "metaflowkit", "run", str(path), "--run-dir", str(run), *more, *arguments]

    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment, capture_output=True)
    whole = time.monotonic() - started
    chance = random.Random(time.time_ns())
    kills = 0
    for moment in sorted(chance.uniform(0.25, 0.9) for _ in range(3)):
        resume = ["--resume"] if (tmp_path / "cut" / "pipeline.yaml").exists() else []
        process = subprocess.Popen(command(tmp_path / "cut", *resume), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment * whole)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    subprocess.run(command(tmp_path / "cut", "--resume"), check=True, env=environment, capture_output=True)
    for name in ("metrics.jsonl", "checkpoints/best.pt", "checkpoints/step-0000120.pt", "checkpoints/step-0000119.pt"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
