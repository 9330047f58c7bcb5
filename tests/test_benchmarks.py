"""The benchmark runs its smallest case: contenders agree, and table, figures and plot are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "meta_gradient.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment)


def test_smallest_case(tmp_path) -> None:
    done = run("--case", "small", "--repeats", 1, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    names = [result["contender"] for result in results]
    assert names[:4] == ["plain higher", "functional_call", "this, auto", "this, higher"]
    assert all(result["agree"] < 1e-9 and result["floor"] > 0 and result["median"] > 0 for result in results)
    assert all(name in done.stdout for name in names)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_unknown_case() -> None:
    done = run("--case", "smal")
    assert done.returncode == 2
    assert "there is no case 'smal'; use one of conv4-64" in done.stderr
