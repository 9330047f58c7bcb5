"""Shipped pipelines and searches: listed and copied from the installed package, with what an editor needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.config.json_schema import json_schema
from metaflowkit.config.pipeline import read
from metaflowkit.config.shipped import SCHEMA, shipped
from metaflowkit.search.specification import read_search

ROOT = Path(__file__).parents[2]


def mfk(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


def test_every_file_is_listed_with_a_line_that_says_what_it_is() -> None:
    listed = mfk("ls")
    files = {path.relative_to(ROOT / "pipelines").with_suffix("").as_posix() for path in (ROOT / "pipelines").rglob("*.yaml")}
    files |= {f"search/{path.stem}" for path in (ROOT / "search").rglob("*.yaml")}
    assert set(shipped()) == files
    for name, file in shipped().items():
        assert f"  {name} " in listed
        assert len(file.summary) > 30
        assert file.summary.endswith(".")
        assert f"  {file.summary}\n" in listed


@pytest.mark.parametrize("name", shipped())
def test_each_is_copied_and_is_what_it_was(name, tmp_path) -> None:
    text = mfk("init", name, tmp_path / "mine")
    copy = tmp_path / "mine" / f"{Path(name).name}.yaml"
    original = shipped()[name]
    assert text.endswith(f"next: mfk {original.command} {copy}\n")
    assert copy.read_text().splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA}"
    assert f"# mfk {original.command} {copy.name}" in copy.read_text()
    assert json.loads((tmp_path / "mine" / SCHEMA).read_text()) == json_schema()
    if original.command == "run":
        assert read(copy).plain() == read(original.path).plain()
    else:
        assert read_search(copy).written_out() == read_search(original.path).written_out()


def test_the_installed_package_has_them(tmp_path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "metaflowkit", "init", "search/quickstart"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"written: quickstart.yaml, quickstart_pipeline.yaml, {SCHEMA}\nnext: mfk search quickstart.yaml\n"
    assert (
        read_search(tmp_path / "quickstart.yaml").pipeline.plain()
        == read(ROOT / "pipelines" / "quickstart.yaml", ["outer.steps=50", "evaluate.every=10", "evaluate.val_episodes=100"]).plain()
    )


def test_nothing_is_overwritten_and_an_unknown_name_is_answered_with_the_nearest(tmp_path) -> None:
    mfk("init", "quickstart", tmp_path)
    (tmp_path / "quickstart.yaml").write_text("mine")
    refused = mfk("init", "quickstart", tmp_path, code=2)
    assert refused == f"{tmp_path / 'quickstart.yaml'}: exists already; choose another folder, or remove it\n"
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"
    unknown = mfk("init", "quikstart", tmp_path / "other", code=2)
    assert unknown == "mfk init: there is no shipped pipeline or search 'quikstart'; did you mean 'quickstart'? (mfk ls says what each is)\n"
    assert not (tmp_path / "other").exists()
