"""mfk compare as a user starts it: a pipeline against another and against itself, stopped and continued, and what cannot be compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.comparison import compare as module
from metaflowkit.comparison.runs import Contender, contenders, seconds_per_step
from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError, Interrupted
from tests.small import SMALL

BASE = SMALL.replace("val_episodes: 4", "val_episodes: 4, readouts: [prototype]")
FAST = "inner.rule.lr=0.3"


@pytest.fixture
def files(write) -> tuple[Path, Path]:
    return write(BASE, "base.yaml"), write(BASE.replace("inner: {steps: 1}", "inner: {steps: 1, rule: {name: sgd, lr: 0.3}}"), "fast.yaml")


def mfk(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_comparison_is_stopped_goes_on_and_calls_a_pipeline_against_itself_unresolved(files, tmp_path, monkeypatch) -> None:
    out, trained = tmp_path / "out", []
    real = module.train_or_reuse

    def stopped(contender, seed, folder, tell) -> None:
        if len(trained) == 2:
            raise Interrupted("stopped by SIGINT, all is saved; give the same command again", "SIGINT")
        trained.append(folder)
        real(contender, seed, folder, tell)

    arguments = [*files, files[0], "--seeds", 2, "-o", out, "--set", "evaluate.episodes=60", "--set", "outer.steps=2"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "train_or_reuse", stopped)
        mfk(*arguments, code=130)
    weights = [(run / "checkpoints" / "best.pt").read_bytes() for run in trained]
    text = mfk(*arguments)
    assert re.findall(r"^(\S+), seed 0: reused$", text, re.MULTILINE) == ["base", "fast"]
    assert [(run / "checkpoints" / "best.pt").read_bytes() for run in trained] == weights

    assert "unresolved; equal on every episode" in next(line for line in text.splitlines() if line.startswith("  base-2"))
    results = json.loads((out / "comparison.json").read_text())
    assert results["command"].startswith(f"mfk compare {files[0]} {files[1]} {files[0]} --seeds 2 --set evaluate.episodes=60 --set outer.steps=2 -o ")
    itself = results["pipelines"]["base-2"]["settings"]["3-way 1-shot, prototype"]
    assert itself["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (itself["resolved"], itself["seeds_needed"]) == (False, None)
    assert results["pipelines"]["base-2"]["probability_of_improvement"]["value"] == 0.5

    fast = results["pipelines"]["fast"]["settings"]["3-way 1-shot, prototype"]
    lines = [json.loads(line) for line in (out / "fast" / "seed-1" / "evaluations.jsonl").read_text().splitlines()]
    assert fast["trained"][1] == pytest.approx(next(line["accuracy"] for line in lines if line["weights"] == "best"), abs=1e-6)
    others = results["pipelines"]["base"]["settings"]["3-way 1-shot, prototype"]["trained"]
    assert fast["difference"]["value"] == pytest.approx(sum(a - b for a, b in zip(fast["trained"], others)) / 2, abs=1e-9)

    page = (out / "comparison.html").read_text()
    assert page.count("data:image/png") == 2  # by outer step and by time
    assert "mfk compare" in page
    assert not re.search(r"(src|href)='?https?:", page)


def test_a_budget_of_steps_and_of_time(files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "seconds_per_step", lambda pipeline: 0.25 if pipeline.inner.rule.settings["lr"] < 0.2 else 0.5)
    asked = []
    monkeypatch.setattr(module, "train_or_reuse", lambda contender, seed, folder, tell: asked.append((contender.name, contender.pipeline.outer.steps, seed)))
    monkeypatch.setattr(module, "collect", lambda entries, runs: (_ for _ in ()).throw(Interrupted("enough", "SIGINT")))
    mfk(*files, "--seeds", 1, "--budget", 3, "-o", tmp_path / "steps", code=130)
    mfk(*files, "--seeds", 1, "--budget", "2s", "-o", tmp_path / "time", code=130)
    assert asked == [("base", 3, 0), ("fast", 3, 0), ("base", 8, 0), ("fast", 4, 0)]
    monkeypatch.setattr(module, "seconds_per_step", None)  # the plan is kept
    mfk(*files, "--seeds", 1, "--budget", "2s", "-o", tmp_path / "time", code=130)
    assert asked[4:] == asked[2:4]
    assert "holds a comparison of the budget 2s and base, fast; choose another -o" in mfk(*files, "--budget", "3s", "-o", tmp_path / "time", code=1)


def test_the_time_of_a_step_is_measured(files) -> None:
    assert 0 < seconds_per_step(read(files[0])) < 10


def test_what_cannot_be_compared(files, write, tmp_path, monkeypatch) -> None:
    def refused(*arguments: object, code: int = 2) -> str:
        text = mfk(*arguments, "-o", tmp_path / "never", code=code)
        assert not (tmp_path / "never").exists()
        return text

    base, fast = files
    assert refused(base) == "mfk compare: needs two pipelines at least, got 1; name them, the baseline first, or vary one with --vary\n"
    other = write(BASE.replace("query: 2", "query: 3"), "other.yaml")
    assert "other.yaml: is measured on other test episodes than base; evaluate.query is 2 there and 3 here; make them equal" in refused(base, other)
    readout = write(BASE.replace("[prototype]", "[logistic]"), "readout.yaml")
    assert "readout.yaml: has no evaluate.readouts in common with base; name one in both" in refused(base, readout)
    assert "--budget 1: is 1 outer steps of base, which validates every 2; give more, or lower it" in refused(base, fast, "--budget", 1)
    assert "--budget: must be outer steps such as 500, or a time such as 90s, 10m or 2h, got 'soon'" in refused(base, fast, "--budget", "soon")
    monkeypatch.setattr(FewShotFlow, "has", lambda flow, split: False)
    assert "base: has nothing held out for the test, and a comparison is of test episodes; give the data set test classes" in refused(base, fast, code=1)


def test_a_folder_with_a_run_of_another_pipeline_is_left_alone(files, tmp_path) -> None:
    run = tmp_path / "out" / "base" / "seed-0"
    run.mkdir(parents=True)
    (run / "pipeline.yaml").write_text(read(files[0], ["outer.steps=9"]).to_yaml())
    assert "holds a run of another pipeline; outer.steps is 9 there and 4 here; choose another -o, or remove it" in mfk(*files, "-o", tmp_path / "out", code=1)


def test_one_pipeline_is_varied_by_each_change_in_turn(files, tmp_path, monkeypatch) -> None:
    trained = []
    monkeypatch.setattr(module, "train_or_reuse", lambda contender, seed, folder, tell: trained.append((contender, seed, folder)))
    with pytest.raises(ConfigError, match="no such file"):  # since nothing was trained, there are no scores to read
        module.compare(files[:1], [], 2, None, tmp_path, print, ["tasks.shot=2", "tasks.shot=3"])
    assert [(each.pipeline.tasks.settings["shot"], seed, folder) for each, seed, folder in trained] == [
        (shot, seed, tmp_path / f"shot={shot}" / f"seed-{seed}") for seed in (0, 1) for shot in (2, 3)
    ]
    assert [each.name for each in contenders(files[:1], [], ["augment.level=2", "augment=[]", "tasks={name: views, way: 3}"])] == [
        "level=2",
        "augment=",
        "tasks=views-way=3",
    ]
    assert "--vary: makes several pipelines out of one file, got 2 files; name one" in mfk(*files[:2], "--vary", "tasks.shot=2", code=2)
    assert "needs two pipelines at least, got 1; name them, the baseline first, or vary one with --vary" in mfk(files[0], "--vary", "tasks.shot=2", code=2)


def test_names_are_numbered_where_files_share_them(files, tmp_path) -> None:
    (tmp_path / "second").mkdir()
    copy = tmp_path / "second" / "base.yaml"
    copy.write_text(BASE)
    named = contenders([files[0], copy, files[0]])
    assert [each.name for each in named] == ["base", "base-2", "base-3"]
    assert all(isinstance(each, Contender) and each.at(4).seed == 4 for each in named)
