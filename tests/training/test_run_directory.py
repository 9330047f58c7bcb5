"""The run directory: what it says about a run, who may write it, what must equal on resuming; folders compared byte by byte, git asked directly."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from metaflowkit import __version__
from metaflowkit.config.pipeline import read
from metaflowkit.config.types import Pipeline
from metaflowkit.errors import CheckpointError, ConfigError, RunError
from metaflowkit.training import checkpoint
from metaflowkit.training import versions as module
from metaflowkit.training.checkpoint import Snapshot
from metaflowkit.training.run_directory import Run, default_folder, open_run
from metaflowkit.training.versions import PACKAGES

SMALL = """
seed: 5
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
tasks: {name: views, way: 3, shot: 2, query: 1}
inner: {steps: 1}
"""


@pytest.fixture
def pipeline(write) -> Pipeline:
    return read(write(SMALL, "small.yaml"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the run goes: a folder that is not there, below one that is not there."""
    return tmp_path / "runs" / "one"


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, with its content and the time it was written."""
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def facts(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"w": torch.full((2,), float(step))}, {}, 0, None, None, "")


def test_a_new_run_holds_its_pipeline_with_every_default(folder, pipeline) -> None:
    run = open_run(folder, pipeline)
    assert run == Run(folder)
    assert sorted(files(folder)) == ["pipeline.yaml", "run.json"]
    assert run.pipeline().plain() == pipeline.plain()
    assert "temperature: null" in (folder / "pipeline.yaml").read_text()


def test_run_json_says_what_ran_when_and_with_what(folder, pipeline, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mfk", "run", "small.yaml", "--set", "seed=5"])
    before = datetime.now().replace(microsecond=0)
    open_run(folder, pipeline)
    recorded = facts(folder)
    assert (recorded["pipeline"], recorded["seed"], recorded["command"]) == ("small", 5, "mfk run small.yaml --set seed=5")
    assert before <= datetime.strptime(recorded["started"], "%Y-%m-%d %H:%M:%S") <= datetime.now()
    assert recorded["python"] == platform.python_version()
    assert recorded["versions"] == {"metaflowkit": __version__, **{package: version(package) for package in PACKAGES}}
    assert {"torch", "kornia", "higher", "scikit-learn"} <= set(PACKAGES)


def test_a_package_that_is_not_installed_has_no_version(folder, pipeline, monkeypatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package"))
    open_run(folder, pipeline)
    assert facts(folder)["versions"] == {"metaflowkit": __version__, "torch": version("torch"), "no-such-package": None}


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_run_json_names_the_commit_of_the_repository_one_stands_in(folder, pipeline, tmp_path, monkeypatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(repository)
    open_run(folder, pipeline)
    assert facts(folder)["git_commit"] is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    open_run(folder.with_name("two"), pipeline)
    assert facts(folder.with_name("two"))["git_commit"] == git("rev-parse", "HEAD")


def test_without_git_there_is_no_commit_and_the_run_goes_on(folder, pipeline, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    open_run(folder, pipeline)
    assert facts(folder)["git_commit"] is None


def test_an_empty_directory_is_taken(folder, pipeline) -> None:
    folder.mkdir(parents=True)
    open_run(folder, pipeline)
    assert (folder / "pipeline.yaml").is_file()


def test_a_directory_in_use_is_refused_and_stays(folder, pipeline) -> None:
    open_run(folder, pipeline)
    (folder / "metrics.jsonl").write_text("{}\n")
    before = files(folder)
    with pytest.raises(RunError) as caught:
        open_run(folder, pipeline)
    assert str(caught.value) == f"{folder}: is not empty; go on with --resume, replace it with --overwrite, or choose another --run-dir"
    assert files(folder) == before


def test_a_foreign_directory_is_refused_whatever_is_asked_and_stays(folder, pipeline) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    before = files(folder.parent)
    for options, says in [
        ({}, "is not empty; go on with --resume, replace it with --overwrite, or choose another --run-dir"),
        ({"overwrite": True}, "is not empty and no run directory, so --overwrite leaves it alone; choose another --run-dir"),
        ({"resume": True}, "holds no run to resume; leave --resume out, or name its directory with --run-dir"),
    ]:
        with pytest.raises(RunError) as caught:
            open_run(folder, pipeline, **options)
        assert str(caught.value) == f"{folder}: {says}"
        assert files(folder.parent) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_refused_and_stays(tmp_path, pipeline, overwrite) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("x")
    with pytest.raises(RunError) as caught:
        open_run(path, pipeline, overwrite=overwrite)
    assert str(caught.value) == f"{path}: is a file, not a directory; choose another --run-dir"
    assert path.read_text() == "x"


def test_overwrite_leaves_nothing_of_the_old_run_and_nothing_beside_the_new(folder, pipeline, write) -> None:
    run = open_run(folder, pipeline)
    checkpoint.save(snapshot(1), run.checkpoints / "best.pt")
    run.append([{"a": 1}])
    other = read(write(SMALL, "other.yaml"), ["seed=6"])
    open_run(folder, other, overwrite=True)
    assert sorted(files(folder.parent)) == ["one/pipeline.yaml", "one/run.json"]
    assert os.listdir(folder.parent) == ["one"]
    assert (facts(folder)["pipeline"], facts(folder)["seed"], Run(folder).pipeline().seed) == ("other", 6, 6)


def test_overwrite_of_nothing_is_a_new_run(folder, pipeline) -> None:
    open_run(folder, pipeline, overwrite=True)
    assert sorted(files(folder)) == ["pipeline.yaml", "run.json"]


def test_overwrite_cut_short_leaves_no_half_of_the_old_run_and_is_no_obstacle(folder, pipeline) -> None:
    def killed(*arguments, **settings) -> None:
        raise KeyboardInterrupt

    open_run(folder, pipeline)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(folder, pipeline, overwrite=True)
    assert not folder.exists()
    open_run(folder, pipeline)
    open_run(folder, pipeline, overwrite=True)
    assert os.listdir(folder.parent) == ["one"]


def test_overwrite_that_cannot_remove_says_so(folder, pipeline, monkeypatch) -> None:
    def refused(*arguments, **settings) -> None:
        raise PermissionError(1, "Operation not permitted")

    open_run(folder, pipeline)
    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(RunError) as caught:
        open_run(folder, pipeline, overwrite=True)
    assert str(caught.value) == f"{folder}: cannot be replaced (Operation not permitted); remove it yourself or choose another --run-dir"


def test_what_a_kill_in_the_first_moment_leaves_is_no_obstacle(folder, pipeline) -> None:
    folder.mkdir(parents=True)
    (folder / ".pipeline.yaml.partial").write_text("see")
    open_run(folder, pipeline)
    (folder / "run.json").unlink()
    open_run(folder, pipeline, resume=True)
    assert facts(folder)["seed"] == 5


def test_resuming_the_same_pipeline_writes_nothing(folder, pipeline) -> None:
    open_run(folder, pipeline)
    before = files(folder)
    assert open_run(folder, pipeline, resume=True) == Run(folder)
    assert files(folder) == before


def test_resuming_where_there_is_no_run_is_refused_and_makes_none(folder, pipeline) -> None:
    with pytest.raises(RunError, match="holds no run to resume; leave --resume out, or name its directory with --run-dir"):
        open_run(folder, pipeline, resume=True)
    assert not folder.exists()


def test_resuming_another_pipeline_names_what_differs(folder, pipeline, write) -> None:
    open_run(folder, pipeline)
    before = files(folder)
    other = read(write(SMALL, "other.yaml"), ["inner.steps=2", "model.backbone={name: conv4, norm: group}", "augment=[]"])
    with pytest.raises(CheckpointError) as caught:
        open_run(folder, other, resume=True)
    start, *differing, end = str(caught.value).split("; ")
    assert (start, end) == (f"{folder}: holds a run of another pipeline", "resume with the same settings, or choose another --run-dir")
    assert differing == [
        "augment is {'level': 3} there and [] here",
        "model.backbone.norm is batch there and group here",
        "inner.steps is 1 there and 2 here",
    ]
    assert files(folder) == before


def test_resuming_another_pipeline_names_five_differences_of_more(folder, pipeline, write) -> None:
    open_run(folder, pipeline)
    other = read(
        write(SMALL, "other.yaml"), ["seed=1", "tasks.way=4", "tasks.shot=3", "inner.order=first", "inner.steps=2", "outer.clip=null", "outer.steps=9"]
    )
    with pytest.raises(CheckpointError) as caught:
        open_run(folder, other, resume=True)
    _, *differing, _ = str(caught.value).split("; ")
    assert [text.split()[0] for text in differing] == ["seed", "tasks.way", "tasks.shot", "inner.steps", "inner.order.name"]


@pytest.mark.parametrize("heads", [("linear", "prototype"), ("prototype", "linear")])
def test_settings_that_one_of_two_components_has_are_named(folder, write, heads) -> None:
    there, here = (read(write(SMALL, f"{head}.yaml"), ["evaluate.way=3", f"model.head={head}"]) for head in heads)
    open_run(folder, there)
    with pytest.raises(CheckpointError) as caught:
        open_run(folder, here, resume=True)
    values = {"name": {head: head for head in heads}, "initial": {"linear": "xavier"}, "metric": {"prototype": "cosine"}}
    _, *differing, _ = str(caught.value).split("; ")
    assert sorted(differing) == sorted(f"model.head.{key} is {of.get(heads[0])} there and {of.get(heads[1])} here" for key, of in values.items())


def test_the_name_of_the_file_may_change_between_run_and_resume(folder, pipeline, write) -> None:
    open_run(folder, pipeline)
    assert open_run(folder, read(write(SMALL, "renamed.yaml")), resume=True) == Run(folder)


def test_resume_and_overwrite_exclude_each_other(folder, pipeline) -> None:
    open_run(folder, pipeline)
    before = files(folder)
    with pytest.raises(ConfigError) as caught:
        open_run(folder, pipeline, resume=True, overwrite=True)
    assert str(caught.value) == "--resume and --overwrite exclude each other; keep one"
    assert files(folder) == before


def test_the_default_folder_bears_pipeline_and_time(pipeline) -> None:
    path = default_folder(pipeline)
    assert path.parent == Path("runs")
    name, _, time = path.name.partition("-")
    assert name == "small"
    assert timedelta(0) <= datetime.now() - datetime.strptime(time, "%Y%m%d-%H%M%S") < timedelta(minutes=1)


def test_a_folder_without_pipeline_is_no_run(tmp_path) -> None:
    with pytest.raises(RunError) as caught:
        Run(tmp_path).pipeline()
    assert str(caught.value) == f"{tmp_path}: is no run directory (it has no pipeline.yaml); give the folder that mfk run named"


def test_append_keeps_the_earlier_lines(tmp_path) -> None:
    run = Run(tmp_path)
    for results in ([{"a": 1}, {"a": 2}], [], [{"b": "é", "c": [None, 0.5]}]):
        run.append(results)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"a": 2}, {"b": "é", "c": [None, 0.5]}]


def test_results_of_one_measurement_are_appended_once(tmp_path) -> None:
    run = Run(tmp_path)
    for _ in range(2):
        run.append([{"a": 1}, {"a": 2}], once=True)
    run.append([{"a": 1}])
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"a": 2}, {"a": 1}]


def test_append_that_fails_keeps_the_earlier_lines(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path)
    run.append([{"a": 1}])
    before = files(tmp_path)

    def full(*arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"evaluations\.jsonl: cannot be written \(No space left on device\)"):
        run.append([{"a": 2}])
    assert files(tmp_path) == before


def test_the_latest_checkpoint_is_the_one_of_the_last_step(tmp_path) -> None:
    run = Run(tmp_path)
    for step, name in ((10, None), (9, None), (2, "best.pt")):
        checkpoint.save(snapshot(step), run.checkpoints / name if name else checkpoint.step_path(run.checkpoints, step))
    assert run.latest().step == 10
    assert run.latest().model["w"].tolist() == [10.0, 10.0]


def test_no_checkpoint_is_said_with_the_way_out(tmp_path) -> None:
    run = Run(tmp_path)
    for place in (lambda: None, run.checkpoints.mkdir):
        place()
        with pytest.raises(CheckpointError) as caught:
            run.latest()
        assert str(caught.value) == f"{tmp_path / 'checkpoints'}: holds no checkpoint; start the run again with --overwrite"


def test_the_journal_is_that_of_the_folder(tmp_path) -> None:
    Run(tmp_path).metric_log.write(1, a=1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "a": 1}\n'


def test_overwrite_replaces_what_a_link_leads_to_and_spares_the_current_directory(pipeline, tmp_path, monkeypatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    open_run(real, pipeline)
    link.symlink_to(real)
    (real / "old").write_text("x")
    open_run(link, pipeline, overwrite=True)
    assert link.is_symlink()
    assert not (real / "old").exists()
    monkeypatch.chdir(real)
    with pytest.raises(RunError, match=r"\.: is the current directory, so --overwrite leaves it alone; go one up"):
        open_run(Path("."), pipeline, overwrite=True)
    assert (real / "pipeline.yaml").is_file()
