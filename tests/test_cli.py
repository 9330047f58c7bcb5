"""The command line as a user meets it: help without torch, lists of components, a run's last lines, exit codes, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.registry import KINDS
from tests.small import SMALL


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}


def mfk(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "pipelines/quickstart.yaml"], ["components"]])
def test_light_commands_import_neither_torch_nor_kornia(arguments) -> None:
    code = f"import sys; sys.argv = ['mfk', *{arguments}]\ntry:\n    import runpy; runpy.run_module('metaflowkit', run_name='__main__')\nexcept SystemExit as end:\n    assert not end.code, end.code\nassert not {{'torch', 'kornia', 'numpy'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr


def test_components_lists_every_component_with_its_settings() -> None:
    everything = mfk("components")
    for kind in KINDS.values():
        for name, entry in kind.entries().items():
            assert re.search(rf"^  {name} +{re.escape(entry.summary)}$", everything, re.MULTILINE), name
    one = mfk("components", "objective", "bootstrapped_kl")
    assert "  delta: a whole number of at least 0, default 5" in one
    assert "      steps from the student to its target" in one
    assert "RandomAffine" in mfk("components", "level", "grey3")
    failed = CliRunner().invoke(main, ["components", "objectiv"])
    assert (failed.exit_code, "did you mean 'objective'?" in failed.output) == (2, True)


def test_run_then_evaluate(write, tmp_path) -> None:
    run = tmp_path / "run"
    output = mfk("run", write(SMALL), "--run-dir", run, "--set", "evaluate.readouts=[prototype, adapted, logistic]")
    *_, place, following = output.splitlines()
    assert place == f"run directory: {run}"
    assert following.startswith(f"next: mfk evaluate {run} ")
    assert "step 2/4" in output
    assert "untrained" in output
    for name in ("pipeline.yaml", "run.json", "metrics.jsonl", "report.md", "curve.png", "evaluations.jsonl"):
        assert (run / name).stat().st_size > 0
    facts = json.loads((run / "run.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or facts["versions"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/objective" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "val/accuracy" in line] == [0, 2, 4]
    before = (run / "evaluations.jsonl").read_text()
    assert {json.loads(line)["readout"] for line in before.splitlines()} == {"prototype", "adapted", "logistic"}
    again = mfk(*following.removeprefix("next: mfk ").split(), "--episodes", 4, "--readout", "prototype", "--set", "dataset=digits", "--way", 3)
    assert "test 3-way 1-shot prototype:" in again
    assert "statistics of the current set (transductive)" in again
    after = (run / "evaluations.jsonl").read_text()
    assert after.startswith(before)
    assert json.loads(after.splitlines()[-1])["overrides"] == ["dataset=digits"]


def test_quiet_prints_only_the_report(write, tmp_path) -> None:
    output = mfk("run", write(SMALL), "--run-dir", tmp_path / "run", "--quiet")
    assert "step 2/4" not in output
    assert output.strip().startswith("test accuracy")


def test_python_verbs_are_those_of_the_command_line(write, tmp_path) -> None:
    import metaflowkit

    pipeline = metaflowkit.read(write(SMALL), ["outer.steps=2"])
    report = metaflowkit.train(pipeline, tmp_path / "run")
    flow = metaflowkit.build(pipeline)
    (score,) = metaflowkit.evaluate(flow, "test", way=3, shot=1, query=2, episodes=4, readouts=["prototype"])
    assert report.before[0] == score  # the untrained network, measured twice
    assert not hasattr(metaflowkit, "nothing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_saves_and_says_how_to_resume(number, write, tmp_path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "metaflowkit", "run", str(write(SMALL)), "--run-dir", str(run), "--set", "outer.steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    journal = run / "metrics.jsonl"
    end = time.monotonic() + 100
    while time.monotonic() < end and not (journal.exists() and len(journal.read_text().splitlines()) > 5):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    stopped = re.search(rf"stopped by {number.name} after step (\d+), all is saved; go on with the same command and --run-dir \S+ --resume", errors)
    assert stopped, errors
    step = int(stopped[1])
    assert (run / "checkpoints" / f"step-{step:07d}.pt").is_file()
    assert "Traceback" not in errors
    assert json.loads(journal.read_text().splitlines()[-1])["step"] == step
