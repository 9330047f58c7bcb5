"""--json: what a command prints for people and for programs says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.cli.base import say_json
from metaflowkit.config.pipeline import read
from metaflowkit.config.shipped import shipped
from metaflowkit.doctor.findings import fact, wrong
from tests.conftest import png
from tests.small import SMALL


def mfk(*arguments: object, code: int = 0):
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def plain(*arguments: object, code: int = 0):
    return json.loads(mfk(*arguments, "--json", code=code).stdout)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path, dict]:
    """A pipeline, and its run with what mfk run --json printed."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "p.yaml").write_text(SMALL.replace("val_episodes: 4", "val_episodes: 4, readouts: [prototype]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))
        printed = plain("run", folder / "p.yaml", "--run-dir", folder / "run")
    return folder / "p.yaml", folder / "run", printed


def test_a_run(files) -> None:
    _, run, printed = files
    report = (run / "report.md").read_text()
    assert printed["run"] == str(run)
    for before, after, difference in zip(printed["untrained"], printed["trained"], printed["differences"]):
        row = rf"\| {after['way']}-way {after['shot']}-shot, prototype \| {percent(before['accuracy'])} ± .* \| {percent(after['accuracy'])} ± .* \| "
        assert re.search(row, report)
        assert f"{100 * difference['mean']:+.1f} ± {percent(difference['ci95'])}" in report


def test_an_evaluation(files) -> None:
    _, run, printed = files
    result = plain("evaluate", run, "--readout", "prototype")
    assert [score["accuracy"] for score in result["scores"]] == [score["accuracy"] for score in printed["trained"]]
    assert "episodes are drawn with seed 0" in result["protocol"]


def test_checks(files, tmp_path) -> None:
    pipeline, _, _ = files
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("dataset: glyfs\n")
    good, bad = plain("check", pipeline, wrong, code=2)
    assert good == {"file": str(pipeline), "valid": True, "problems": []}
    assert (bad["valid"], "did you mean 'glyphs'?" in bad["problems"][0]) == (False, True)


def test_a_comparison_and_consistency(files, tmp_path) -> None:
    pipeline, _, _ = files
    compared = plain("compare", pipeline, pipeline, "--seeds", 1, "-o", tmp_path / "out", "--set", "outer.steps=2")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {"command": written["command"], **compared} == written
    rows = plain("consistency", pipeline, "--images", 12, "--views", 2, "-o", tmp_path / "views")
    assert rows == json.loads((tmp_path / "views" / "consistency.json").read_text())


def test_settings_files_versions_and_findings(files, monkeypatch) -> None:
    pipeline, _, _ = files
    shown = plain("show", pipeline, "--set", "inner.steps=2")
    assert shown["settings"] == read(pipeline, ["inner.steps=2"]).plain()
    assert (shown["origins"]["inner.steps"], shown["cost"]["operations"] > 0) == ("--set inner.steps=2", True)
    assert [each["name"] for each in plain("ls")] == list(shipped())
    assert plain("version", "--all")["torch"] == dict(re.split(r" +", line, maxsplit=1) for line in mfk("version", "--all").stdout.splitlines())["torch"]
    monkeypatch.setattr("metaflowkit.doctor.diagnose", lambda pipeline, tell: iter([fact("of one task"), wrong("a gradient differs; mend it")]))
    assert plain("doctor", pipeline, code=1) == {
        "findings": [{"verdict": "fact", "text": "of one task"}, {"verdict": "wrong", "text": "a gradient differs; mend it"}],
        "conclusion": "1 finding wrong",
    }


def test_the_cache(files) -> None:
    listed = mfk("cache").stdout.splitlines()
    entries = plain("cache")
    assert len(entries) == len(listed) - 1 > 0
    assert all(f"{Path(entry['path']).stem[:8]}  " in line and entry["title"] in line for entry, line in zip(entries, listed))
    assert mfk("cache", "--clear", "--json", code=2).output == "--json: lists the entries, and --clear removes them; give one of them\n"


def test_what_is_no_number_is_null(capsys) -> None:
    say_json({"a": float("nan"), "b": [float("inf"), 1.5], 3: (Path("x"),)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "3": ["x"]}


@pytest.mark.slow
def test_an_export(files, tmp_path) -> None:
    _, run, _ = files
    printed = plain("export", run, "-o", tmp_path / "out")
    assert {key: value for key, value in printed.items() if key != "folder"} == json.loads((tmp_path / "out" / "card.json").read_text())
    assert printed["folder"] == str(tmp_path / "out")


def test_what_init_writes_and_why(tmp_path) -> None:
    printed = plain("init", "quickstart", tmp_path / "here")
    assert printed["next"] == f"mfk run {printed['written'][0]}"
    assert all(Path(path).is_file() for path in printed["written"])
    for name in ("a", "b", "c"):
        for i in range(4):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / f"{i}.png").write_bytes(png(np.full((20, 20), 16 * i + ord(name), np.uint8)))
    printed = plain("init", "--data", tmp_path / "data", tmp_path / "there")
    text = Path(printed["written"][0]).read_text()
    assert printed["found"]
    assert printed["reasons"]
    assert all(line in text for line in [*printed["found"], *printed["reasons"]])
    assert printed["unreadable"] == []
