"""The command line as a user meets it: help without torch, lists of components, a run's last lines, exit codes, signals."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import nn

import metaflowkit
from metaflowkit.cli import main
from metaflowkit.cli.base import loading
from metaflowkit.config.registry import KINDS
from metaflowkit.errors import Interrupted
from metaflowkit.training.outer_loop import OuterLoop
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_imports_of_a_command_are_left_out_of_garbage_collection_once(monkeypatch) -> None:
    counts = iter([0, 1])
    calls = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: next(counts))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    for _ in range(2):
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled()
    assert calls == [True]


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
    assert "test 3-way 1-shot, prototype:" in again
    assert "statistics of the current set (transductive)" in again
    after = (run / "evaluations.jsonl").read_text()
    assert after.startswith(before)
    assert json.loads(after.splitlines()[-1])["overrides"] == ["dataset=digits"]


def test_quiet_prints_only_the_report(write, tmp_path) -> None:
    output = mfk("run", write(SMALL), "--run-dir", tmp_path / "run", "--quiet")
    assert "step 2/4" not in output
    assert output.strip().startswith("test accuracy")


def test_python_verbs_are_those_of_the_command_line(write, tmp_path) -> None:
    pipeline = metaflowkit.read(write(SMALL), ["outer.steps=2"])
    report = metaflowkit.train(pipeline, tmp_path / "run")
    flow = metaflowkit.build(pipeline)
    (score,) = metaflowkit.evaluate(flow, "test", way=3, shot=1, query=2, episodes=4, readouts=["prototype"])
    assert report.before[0] == score  # the untrained network, measured twice
    assert not hasattr(metaflowkit, "nothing")


@pytest.fixture
def search(write) -> Path:
    write(SMALL, "p.yaml")
    return write("pipeline: p.yaml\nspace:\n  objective.delta: [1, 2, 5]\n", "a search.yaml")


def failed(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output.strip()


def test_check_checks_a_search_as_a_search(search) -> None:
    assert mfk("check", search, search.with_name("p.yaml")) == f"{search}: valid\n{search.with_name('p.yaml')}: valid\n"
    assert mfk("check", search, "--set", "outer.steps=3") == f"{search}: valid\n"
    assert failed("check", search, "--set", "outer.stepz=3") == "--set outer.stepz=3: outer.stepz: is no known key; did you mean 'steps'?"
    search.write_text(search.read_text().replace("delta", "dleta"))
    assert failed("check", search) == f"{search}:3:3: objective.dleta: objective 'bootstrapped_kl' has no such setting; did you mean 'delta'?"


@pytest.mark.parametrize(
    "text", ["pipeline: p.yaml\n", "space: {objective.delta: [1, 5]}\n", "pipeline: p.yaml\nspace: {objective.delta: [1, 5]}\ndataset: glyphs\n"]
)
def test_a_search_is_known_by_its_keys(search, text) -> None:
    search.write_text(text)
    missing = next((key for key in ("pipeline", "space") if key not in text), None)
    says = f"{search}:1:1: {missing}: is missing and has no default; add it" if missing else f"{search}:3:1: dataset: is no known key; "
    assert failed("check", search).startswith(says)


def test_the_verb_that_fits_a_file_is_named(search) -> None:
    says = f"{search}: is a search file, not a pipeline; start it with mfk search '{search}'"
    assert [failed(verb, search) for verb in ("run", "doctor")] == [says, says]
    pipeline = search.with_name("p.yaml")
    assert failed("search", pipeline) == f"{pipeline}: is a pipeline, not a search file; start it with mfk run {pipeline}"


@pytest.fixture
def cut(write, tmp_path) -> Path:
    """A run with an override whose last checkpoint is gone, and the bytes it had."""
    mfk("run", write(SMALL), "--run-dir", tmp_path / "a run", "--set", "inner.steps=2", "--quiet")
    (tmp_path / "a run" / "checkpoints" / "step-0000004.pt").unlink()
    return tmp_path / "a run"


@pytest.mark.parametrize("arguments", [["--run-dir", "RUN", "--resume"], ["--resume", "RUN"]], ids=" ".join)
def test_a_run_is_resumed_without_its_file_and_its_overrides(cut, arguments) -> None:
    journal = (cut / "metrics.jsonl").read_bytes()
    output = mfk("run", *[str(cut) if argument == "RUN" else argument for argument in arguments])
    assert "step 4/4" in output
    assert (cut / "checkpoints" / "step-0000004.pt").is_file()
    assert (cut / "metrics.jsonl").read_bytes() == journal
    assert json.loads((cut / "run.json").read_text())["pipeline"] == "p"


def test_a_run_is_resumed_only_as_what_it_is(cut, tmp_path) -> None:
    def refused(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["run", *map(str, arguments)], catch_exceptions=False)
        return result.exit_code, result.output.strip()

    differs = "holds a run of another pipeline; inner.steps is 2 there and 1 here"
    assert differs in refused(tmp_path / "p.yaml", "--run-dir", cut, "--resume")[1]
    assert differs in refused("--run-dir", cut, "--resume", "--set", "inner.steps=1")[1]
    assert refused() == (2, "mfk run: needs a pipeline file; name one, or the run to go on with by --run-dir and --resume")
    assert refused("--run-dir", cut) == (2, "mfk run: needs a pipeline file; name one, or the run to go on with by --run-dir and --resume")
    assert refused("--resume") == (2, "--resume: needs the run to go on with; add --run-dir runs/...")
    assert refused(tmp_path / "p.yaml", "--resume") == (2, "--resume: needs the run to go on with; add --run-dir runs/...")
    empty = tmp_path / "empty"
    says = f"mfk: {empty}: holds no run to resume; name its directory with --run-dir, or give the pipeline file to start it"
    assert refused("--run-dir", empty, "--resume") == (1, says)


@pytest.fixture
def training() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command that trains in this run directory and gives its process once five more steps are done."""
    processes = []

    def start(run: Path, *command: str) -> subprocess.Popen[str]:
        journal = run / "metrics.jsonl"
        lines = len(journal.read_text().splitlines()) if journal.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "metaflowkit", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        processes.append(process)
        end = time.monotonic() + 100
        while time.monotonic() < end and not (journal.exists() and len(journal.read_text().splitlines()) > lines + 5):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_directory_of_one_process_through_a_signal_a_resume_and_a_kill(write, tmp_path, monkeypatch, training) -> None:
    def beside_the_first(loop) -> None:
        raise AssertionError("the second trains as well")

    run, path = tmp_path / "run", write(SMALL)
    arguments = ["run", str(path), "--run-dir", str(run), "--set", "outer.steps=100000"]
    first = training(run, *arguments)
    for more in (["--resume"], ["--overwrite"], []):
        with monkeypatch.context() as patched:
            patched.setattr("metaflowkit.training.loop.OuterLoop.advance", beside_the_first)
            second = CliRunner().invoke(main, [*arguments, *more])
        assert second.exit_code == 1
        assert (
            f"{run}: another process is at work in this run directory; wait for it, stop it, or choose another --run-dir (held by process {first.pid} on "
            in second.output
        )
    assert first.poll() is None

    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT
    stopped = re.search(r"stopped by SIGINT after step (\d+), all is saved; go on with (mfk run --run-dir \S+ --resume)$", errors, re.MULTILINE)
    assert stopped, errors
    assert "Traceback" not in errors
    assert (run / "checkpoints" / f"step-{int(stopped[1]):07d}.pt").is_file()
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == int(stopped[1])
    assert not (run / "run.lock").exists()

    resumed = training(run, *shlex.split(stopped[2])[1:])
    resumed.kill()
    resumed.communicate()
    assert (run / "run.lock").exists()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] > int(stopped[1])
    assert steps == sorted(steps)
    output = mfk("run", path, "--run-dir", run, "--overwrite", "--quiet")  # what was killed keeps nobody out
    assert "test accuracy" in output
    assert not (run / "run.lock").exists()


def signalled(count: int) -> Callable[[OuterLoop], None]:
    """An outer step that gets so many signals in step 3."""
    advance = OuterLoop.advance

    def advance_signalled(loop: OuterLoop) -> None:
        for _ in range(count if loop.step == 3 else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        advance(loop)

    return advance_signalled


def test_a_second_signal_stops_at_once_and_says_what_is_saved(write, tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(OuterLoop, "advance", signalled(2))
        result = CliRunner().invoke(main, ["run", str(write(SMALL)), "--run-dir", str(run), "--quiet"])
    assert result.exit_code == 128 + signal.SIGTERM
    assert result.stderr == (
        f"mfk: {run}: stopped at once by SIGTERM, all is saved up to step 2 and what came after it is lost; go on with mfk run --run-dir {run} --resume\n"
    )
    assert mfk("run", tmp_path / "p.yaml", "--run-dir", run, "--resume", "--quiet")


def test_a_run_of_objects_from_python_is_resumed_by_the_call_that_is_named(tmp_path, monkeypatch) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 4))
    backbone.features = 4
    pipeline = metaflowkit.pipeline({**yaml.safe_load(SMALL), "model": {"backbone": backbone}})
    with monkeypatch.context() as patched:
        patched.setattr(OuterLoop, "advance", signalled(1))
        with pytest.raises(Interrupted) as stopped:
            metaflowkit.train(pipeline, tmp_path / "run")
    call = f"metaflowkit.train(pipeline, {str(tmp_path / 'run')!r}, resume=True)"
    assert str(stopped.value).endswith(f"all is saved; go on with {call} in Python, where the pipeline was made")
    assert eval(call).after


def test_ctrl_c_before_anything_is_written_is_one_line(write, monkeypatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metaflowkit.config.pipeline.read", interrupted)
    result = CliRunner().invoke(main, ["run", str(write(SMALL))])
    assert (result.exit_code, result.output) == (130, "mfk: stopped by SIGINT before anything new was written; give the same command again\n")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("import nowhere_to_be_found\n", 2, "ModuleNotFoundError: No module named 'nowhere_to_be_found'; correct it, or install what it needs"),
        ("\n\n1 / 0\n", 4, "ZeroDivisionError: division by zero; correct it"),
        ("def f():\n    raise SystemExit('enough\\x1b[2J')\nf()\n", 3, r"SystemExit: enough\x1b[2J; correct it"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(text, line, says, write, tmp_path, monkeypatch) -> None:
    name = f"broken_{line}"
    write(f"from __future__ import annotations\n{text}", f"{name}.py")
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(main, ["run", str(write(SMALL + f"plugins: [{name}]")), "--run-dir", str(tmp_path / "run")])
    assert (result.exit_code, result.output) == (
        2,
        f"{tmp_path}/p.yaml:9:10: plugins: {name} cannot be imported, {tmp_path}/{name}.py:{line}: {says}" + result.output.partition(says)[2],
    )
    assert len(result.output.splitlines()) == 1


def test_a_plugin_that_is_no_python_is_one_line(write, tmp_path, monkeypatch) -> None:
    write("x = (\n", "unclosed.py")
    write("import unclosed\n", "imports_unclosed.py")
    monkeypatch.syspath_prepend(tmp_path)
    for name, says in (
        ("unclosed", "unclosed.py:1: SyntaxError: '(' was never closed (unclosed.py, line 1); correct it"),
        ("imports_unclosed", "unclosed.py:1: SyntaxError: '(' was never closed"),
    ):
        result = CliRunner().invoke(main, ["run", str(write(SMALL + f"plugins: [{name}]")), "--run-dir", str(tmp_path / "run")])
        assert result.exit_code == 2
        assert says in result.output
        assert len(result.output.splitlines()) == 1
