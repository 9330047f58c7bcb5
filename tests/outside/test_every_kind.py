"""One component per kind, as docs/own.md writes it, from the check to the search."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft7Validator

from metaflowkit.config.json_schema import json_schema
from metaflowkit.config.registry import KINDS
from metaflowkit.config.yaml import read_yaml
from tests.test_docs import blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab.py").write_text("\n\n".join(code for _, code in blocks("own.md", "python")))
    for title, text in blocks("own.md", "yaml"):
        (folder / title).write_text(text)
    return folder


ONE_PROCESS = """
import json, sys
from click.testing import CliRunner
from metaflowkit.cli import main

results = [CliRunner().invoke(main, command) for command in json.loads(sys.argv[1])]
print(json.dumps([(result.exit_code, result.output + str(result.exception or "")) for result in results]))
"""


def mfk(folder: Path, *commands: str) -> list[str]:
    """What each command prints, in one process of their own, where the plugin is registered and forgotten."""
    arguments = [sys.executable, "-W", "ignore", "-c", ONE_PROCESS, json.dumps([command.split() for command in commands])]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [code for code, _ in results] == [0] * len(commands), results
    return [output for _, output in results]


def test_the_page_has_a_component_of_every_kind(folder) -> None:
    registered = re.findall(r"^@([A-Z_]+)\.register", (folder / "my_lab.py").read_text(), re.MULTILINE)
    assert sorted(registered) == sorted([*KINDS, "TASKS"])  # few-shot tasks, and such that measure themselves


def test_they_check_train_and_are_measured(folder) -> None:
    checked, listed, written, trained, measured, family = mfk(
        folder,
        "check my_lab.yaml my_search.yaml my_family.yaml",
        "components rule sign_sgd --pipeline my_lab.yaml",
        "schema --plugin my_lab -o my_schema.json",
        "run my_lab.yaml --run-dir run",
        "evaluate run --way 3 --shot 1",
        "run my_family.yaml --run-dir family",
    )
    assert checked == "my_lab.yaml: valid\nmy_search.yaml: valid\nmy_family.yaml: valid\n"
    assert written == "written: my_schema.json\n"
    for file in ("my_lab.yaml", "my_search.yaml", "my_family.yaml"):
        plain = read_yaml(folder / file).plain()
        assert Draft7Validator(json.loads((folder / "my_schema.json").read_text())).is_valid(plain)
        assert not Draft7Validator(json_schema()).is_valid(plain)  # without the plugin
    assert "test absolute_error" in family
    assert "3-shot, 3 steps" in family
    assert "length of a step." in listed
    assert "engine double precision" in trained
    assert "3-way 1-shot, adapted" in trained
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"train/objective", "train/largest_score"} <= {key for line in lines for key in line}
    assert "test 3-way 1-shot, prototype: " in measured
    assert "test 3-way 1-shot, neighbour: " in measured
    assert "at step" in (folder / "longest.txt").read_text()
    weights = torch.load(folder / "run" / "checkpoints" / "best.pt", weights_only=True)["model"]
    assert weights["augment.strength"] != 0.1


@pytest.mark.slow
def test_they_are_searched(folder) -> None:
    (out,) = mfk(folder, "search my_search.yaml --study-dir study")
    assert "my_search: 2 complete of 2 trials" in out
    assert "3-way 1-shot, adapted" in out
