"""``mfk run --nproc``: the launcher, a process that is killed or hangs, and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from tests import small
from tests.training.test_loop import EXACT

LONG = small.SMALL.replace("meta_batch: 1", "meta_batch: 2").replace("{steps: 4}", "{steps: 6, reduction: ordered}")
SLOW = """
import time

from metaflowkit.config import registry
from metaflowkit.tasks.views import Views


@registry.TASKS.register("slow_views")
class SlowViews(Views):
    \"\"\"Views that take their time.\"\"\"

    def episode(self, step: int):
        \"\"\"The tasks of a step.\"\"\"
        time.sleep(0.3 if step > 1 else 0)
        return super().episode(step)
"""


def command(*arguments: object, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "metaflowkit", "run", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )


@pytest.fixture
def slow(tmp_path, monkeypatch) -> Path:
    """A pipeline whose steps take a third of a second."""
    (tmp_path / "slow_tasks.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "p.yaml"
    path.write_text(LONG.replace("name: views", "name: slow_views") + "plugins: [slow_tasks]\n")
    return path


def until(log: Path, length: int) -> None:
    deadline = time.monotonic() + 90
    while not log.is_file() or len(log.read_text().splitlines()) < length:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(folder: Path) -> list[int]:
    """The processes that share the run in a folder, in the order in which they were started."""
    shown = subprocess.run(["pgrep", "-f", f"run-dir {folder} --timeout"], capture_output=True, text=True, check=False).stdout
    return sorted(int(line) for line in shown.split())


@pytest.mark.slow
def test_a_process_that_is_killed_is_restarted_and_the_run_ends_as_if_nothing_had_happened(slow, tmp_path) -> None:
    whole = command(slow, "--run-dir", tmp_path / "whole")
    text = whole.communicate(timeout=120)[0]
    assert whole.returncode == 0, text
    cut = command(slow, "--run-dir", tmp_path / "cut", "--nproc", 2, "--max-restarts", 2)
    for length in (5, 8):  # lines of the metric log
        until(tmp_path / "cut/metrics.jsonl", length)
        os.kill(processes_of(tmp_path / "cut")[-1], signal.SIGKILL)
        time.sleep(3)  # until the log is rewound
    text = cut.communicate(timeout=120)[0]
    assert cut.returncode == 0, text
    assert text.count("the connection to another process of this run is lost") == 2
    for name in EXACT:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_the_command_save_the_run(number, code, slow, tmp_path) -> None:
    started = command(slow, "--run-dir", tmp_path / "run", "--nproc", 2)
    until(tmp_path / "run/metrics.jsonl", 3)
    started.send_signal(number)
    text = started.communicate(timeout=60)[0]
    assert started.returncode == code
    assert text.count(f"stopped by {number.name} after step") == 1
    assert "Traceback" not in text
    assert processes_of(tmp_path / "run") == []


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run_within_the_timeout(slow, tmp_path) -> None:
    started = command(slow, "--run-dir", tmp_path / "run", "--nproc", 2, "--timeout", 5)
    until(tmp_path / "run/metrics.jsonl", 3)
    os.kill(processes_of(tmp_path / "run")[-1], signal.SIGSTOP)
    text = started.communicate(timeout=90)[0]
    assert started.returncode == 1
    assert text.count("no answer within 5 s from process 1 of 2, which hangs or is too slow; see --timeout; all is saved up to step ") == 1
    assert processes_of(tmp_path / "run") == []


def test_a_wrong_pipeline_is_refused_before_processes_start(write) -> None:
    path = write(LONG.replace("steps: 6", "steps: 0"))
    result = CliRunner().invoke(main, ["run", str(path), "--nproc", "2"])
    assert result.exit_code == 2
    assert result.output.count("outer.steps") == 1


def test_nproc_within_a_launcher_is_refused(write, monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    result = CliRunner().invoke(main, ["run", str(write(LONG)), "--nproc", "2"])
    assert (result.exit_code, result.output) == (
        2,
        "--nproc: these processes were started by a launcher such as torchrun; leave it out, or leave the launcher out\n",
    )


def test_restarts_without_processes_of_its_own_are_refused(write) -> None:
    result = CliRunner().invoke(main, ["run", str(write(LONG)), "--max-restarts", "2"])
    assert (result.exit_code, result.output) == (2, "--max-restarts: needs --nproc; add it, or give --max-restarts to torchrun, before -m\n")


def test_restarts_need_a_run_directory_that_they_find(write, monkeypatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    result = CliRunner().invoke(main, ["run", str(write(LONG))])
    assert (result.exit_code, result.output) == (2, "--max-restarts: a restart would not find the run; name its directory with --run-dir\n")
