"""What a user can do wrong: one clear error with its place and the way out, the right exit code, earlier results whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from tests.conftest import png

SMALL = """
dataset: {name: folder, root: ROOT, depth: 1, mode: grey, image_size: 16}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}
model: {backbone: {name: conv4, width: 4}}
inner: {steps: 1}
outer: {steps: 4}
evaluate: {every: 2, way: 2, query: 2, episodes: 4, val_episodes: 4, readouts: [prototype]}
"""


@pytest.fixture
def shapes(tmp_path) -> Path:
    """Ten classes of six small grey images each."""
    rng = np.random.default_rng(0)
    for c in range(10):
        folder = tmp_path / "shapes" / f"class{c}"
        folder.mkdir(parents=True)
        tile = rng.random((4, 4)) < 0.5
        for i in range(6):
            (folder / f"{i}.png").write_bytes(png(np.kron(tile ^ (rng.random((4, 4)) < 0.1), np.full((4, 4), 255)).astype(np.uint8)))
    return tmp_path / "shapes"


@pytest.fixture
def pipeline(write, shapes) -> Path:
    return write(SMALL.replace("ROOT", str(shapes)), "small.yaml")


def mfk(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("verb", ["run", "check"])
def test_missing_empty_directory_and_list_in_place_of_a_pipeline(verb, write, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    for path, says in [
        (tmp_path / "none.yaml", "none.yaml: no such file"),
        (write("", "empty.yaml"), "empty.yaml: is empty; start from one of the files under pipelines/"),
        (tmp_path / "folder", "folder: is a directory, not a file; name the YAML file in it"),
        (write("- a\n- b", "list.yaml"), "list.yaml:1:1: must be a mapping of keys to values, got a list"),
    ]:
        code, output = mfk(verb, path)
        assert code == 2
        assert says in output
        assert "Traceback" not in output


def test_every_problem_of_every_file_in_one_go(write) -> None:
    one = write("dataset: glyfs\nseed: x\nseed: 1", "one.yaml")
    two = write("dataset: glyphs\ninner: {steps: -1, rule: {name: sgd, lrr: 0.1}}", "two.yaml")
    code, output = mfk("check", one, two)
    assert code == 2
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in output.splitlines()] == ["one.yaml:3:1", "two.yaml:2:16", "two.yaml:2:38"]
    assert "did you mean 'lr'?" in output


def test_bad_overrides(pipeline) -> None:
    for override, says in [
        ("inner.stepz=3", "--set inner.stepz=3: inner.stepz: is no known key; did you mean 'steps'?"),
        ("inner.steps", "--set inner.steps: must be path=value"),
        ("inner.steps=many", "--set inner.steps=many: inner.steps: must be a whole number of at least 0, got 'many'"),
        ("seed.x=1", "'x' would stand below 0, which holds no keys"),
    ]:
        code, output = mfk("run", pipeline, "--set", "seed=0", "--set", override)
        assert (code, says in output) == (2, True), output


def test_data_errors_leave_no_run_directory(pipeline, shapes, tmp_path) -> None:
    run = tmp_path / "run"
    (shapes / "class3" / "2.png").write_bytes((shapes / "class3" / "2.png").read_bytes()[:40])
    code, output = mfk("run", pipeline, "--run-dir", run)
    assert code == 1
    assert "1 of 60 images cannot be read; mend or remove them" in output
    assert "class3/2.png: is no image in a known format" in output
    (shapes / "class3" / "2.png").unlink()
    code, output = mfk("run", pipeline, "--run-dir", run, "--set", "evaluate.way=3")
    assert code == 1
    assert "evaluate on split 'val'" in output
    assert "3" in output
    code, output = mfk("run", pipeline, "--run-dir", run, "--set", f"dataset.root={tmp_path / 'nowhere'}")
    assert (code, "does not exist; set dataset.root" in output) == (1, True)
    assert not run.exists()


def test_one_class_and_no_zip(pipeline, tmp_path) -> None:
    (tmp_path / "one" / "only").mkdir(parents=True)
    (tmp_path / "one" / "only" / "a.png").write_bytes(png(np.zeros((16, 16), np.uint8)))
    code, output = mfk("run", pipeline, "--set", f"dataset.root={tmp_path / 'one'}")
    assert (code, "holds one class, 'only'; few-shot tasks need at least two folders" in output) == (1, True)
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("a/1.png", png(np.zeros((16, 16), np.uint8)))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:50])
    code, output = mfk("run", pipeline, "--set", f"dataset.root={tmp_path / 'cut.zip'}")
    assert (code, "is neither a folder nor a whole zip file" in output) == (1, True)


def test_used_directory_other_pipeline_and_cut_checkpoint(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    before = files(run)
    for arguments, code, says in [
        ((), 1, "is not empty; go on with --resume, replace it with --overwrite"),
        (("--resume", "--overwrite"), 2, "exclude each other"),
        (("--resume", "--set", "inner.steps=2"), 1, "holds a run of another pipeline; inner.steps is 1 there and 2 here"),
    ]:
        found, output = mfk("run", pipeline, "--run-dir", run, *arguments)
        assert (found, says in output) == (code, True), output
        assert files(run) == before
    last = run / "checkpoints" / "step-0000004.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    code, output = mfk("run", pipeline, "--run-dir", run, "--resume")
    assert (code, "step-0000004.pt: is no whole checkpoint" in output) == (1, True)
    assert "remove it to go on from step-0000002.pt" in output
    last.unlink()
    assert mfk("run", pipeline, "--run-dir", run, "--resume", "--quiet")[0] == 0
    after = files(run)
    assert {n: b for n, b in after.items() if n.endswith((".pt", "metrics.jsonl"))} == {n: b for n, b in before.items() if n.endswith((".pt", "metrics.jsonl"))}
    best = run / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:100])
    code, output = mfk("evaluate", run)
    assert (code, "best.pt: is no whole checkpoint" in output) == (1, True)


def test_evaluate_refuses_what_does_not_fit(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    for arguments, code, says in [
        (("--set", "model.backbone.width=8"), 1, "its weights do not fit this model"),
        (("--way", "9"), 1, "9"),
        (("--split", "val", "--set", "dataset.fractions={train: 0.5, test: 0.5}"), 1, "split 'val': has no classes, so accuracy cannot be measured on it"),
        (("--set", "evaluate.wey=3"), 2, "did you mean 'way'?"),
    ]:
        found, output = mfk("evaluate", run, *arguments)
        assert (found, says in output) == (code, True), output
    code, output = mfk("evaluate", tmp_path / "shapes")
    assert (code, "is no run directory" in output) == (1, True)


def test_overwrite_replaces_a_run_and_nothing_else(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    (run / "checkpoints" / "mine.txt").write_text("old")
    assert mfk("run", pipeline, "--run-dir", run, "--quiet", "--overwrite", "--set", "seed=1")[0] == 0
    assert not (run / "checkpoints" / "mine.txt").exists()
    assert json.loads((run / "run.json").read_text())["seed"] == 1
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    code, output = mfk("run", pipeline, "--run-dir", precious, "--overwrite")
    assert (code, "no run directory, so --overwrite leaves it alone" in output) == (1, True)
    assert (precious / "thesis.tex").read_text() == "x"
    code, output = mfk("run", pipeline, "--run-dir", precious / "thesis.tex")
    assert (code, "is a file, not a directory" in output) == (1, True)


def test_what_a_kill_leaves_in_the_first_moment_does_not_stand_in_the_way(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".pipeline.yaml.partial").write_text("seed")
    aside = tmp_path / ".run.removed"
    aside.mkdir()
    (aside / "old").write_text("x")
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    (run / "run.json").unlink()
    assert mfk("run", pipeline, "--run-dir", run, "--quiet", "--resume")[0] == 0
    assert json.loads((run / "run.json").read_text())["seed"] == 0
    assert mfk("run", pipeline, "--run-dir", run, "--quiet", "--overwrite")[0] == 0
    assert not aside.exists()


def limited(arguments: list[object], size: int) -> subprocess.CompletedProcess[str]:
    """Run mfk where no file may grow beyond ``size`` bytes, as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-m", "metaflowkit", *map(str, arguments)], preexec_fn=limit, capture_output=True, text=True, env=environment)


def test_no_space_leaves_the_last_checkpoint_whole(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    (run / "checkpoints" / "step-0000004.pt").unlink()
    before = files(run / "checkpoints")
    failed = limited(["run", pipeline, "--run-dir", run, "--resume"], size=5000)  # a checkpoint is larger, the journal is not
    assert failed.returncode == 1
    assert "cannot be written (File too large); free space" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert files(run / "checkpoints") == before
    assert mfk("run", pipeline, "--run-dir", run, "--resume", "--quiet")[0] == 0


def test_unwritable_run_directory(pipeline, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    code, output = mfk("run", pipeline, "--run-dir", tmp_path / "file" / "run")
    assert (code, "cannot be written (Not a directory); free space or choose another place" in output) == (1, True)
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        code, output = mfk("run", pipeline, "--run-dir", tmp_path / "locked" / "run")
        assert (code, "cannot be written (Permission denied)" in output) == (1, True)
    code, output = mfk("run", pipeline, "--run-dir", "/proc/metaflowkit-run")
    assert (code, "cannot be written" in output) == (1, True)
