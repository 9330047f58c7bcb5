"""What a user can do wrong: one clear error with its place and the way out, the right exit code, earlier results whole."""

from __future__ import annotations

import json
import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ('"seed\\n": 1', "1:1", r"'seed\n': is no known key; did you mean 'seed'?"),
        ('"p.yaml: a: b": 1', "1:1", "'p.yaml: a: b': is no known key"),
        ('"a\\e[2Jb": 1', "1:1", r"'a\x1b[2Jb': is no known key"),
        ('inner: {"\\u202Esteps": 1}', "1:9", r"inner.'\u202esteps': is no known key; did you mean 'steps'?"),
        ('objective: {name: bootstrapped_kl, "d\\u200Belta": 1}', "1:36", r"objective.'d\u200belta': objective 'bootstrapped_kl' has no such setting"),
        ('augment: {"\\e[31m": 1}', "1:11", r"augment.'\x1b[31m': is no known key"),
        ('inner: {learn: {"l: r": all}}', "1:25", "inner.learn.'l: r': the rule 'sgd' has no such number to learn"),
        ('"k\\e": 1\n"k\\e": 2', "2:1", r"'k\x1b': is given twice, first on line 1; keep one"),
        ('tasks: "\\e]0;x\\a"', "1:8", r"tasks: there is no tasks '\x1b]0;x\x07'"),
        ('device: "\\u2066"', "1:9", r"device: must be auto, cpu, cuda or cuda:N, got '\u2066'"),
        ('plugins: ["\\e"]', "1:10", r"plugins: there is no module '\x1b'"),
        (f"seed: {'x' * 5000}", "1:7", f"seed: must be a whole number of at least 0, got '{'x' * 60}'... (5,000 characters); "),
        (f"{'k' * 1000}: 1", "1:1", f"'{'k' * 60}'... (1,000 characters): is no known key; use one of"),
        (f"inner: {{steps: {10**200}}}", "1:16", "inner.steps: must be a whole number of at most 64 bits, got 1000"),
        (f"outer: {{clip: {10**200}}}", "1:15", "outer.clip: must be a number of at most 1e+12 in size, got 1000"),
        (f"seed: {10**400}", "1:7", "is a number of 401 digits; write one of at most 300"),
        (f"seed: 0x{'f' * 100_000}", "1:7", "is a number of 100,002 digits; write one of at most 300"),
        ("outer: {clip: .inf}", "1:15", "outer.clip: must be a number of at most 1e+12 in size, got inf; write a smaller one"),
        (f"seed: {'[' * 60}{']' * 60}", "1:57", "nests deeper than 50 levels; flatten it"),
        (f"seed: {'{a: ' * 400}1{'}' * 400}", "1:207", "nests deeper than 50 levels; flatten it"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefg", "bcdefgh")), "1:32", "comes after 20,000 values"),
        ('seed: "\\UFFFFFFFF"', "", "is not valid YAML, an escape names no character"),
    ],
    ids=range(22),  # the texts themselves would be unreadable names
)  # fmt: skip
def test_hostile_text_is_quoted_on_the_line_of_its_file(write, text, place, says) -> None:
    path = write(f"{text}\ndataset: glyphs" if "dataset" not in text else text)
    code, output = mfk("check", path)
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith(f"{path}:{place}: {says}" if place else f"{path}: {says}"), line
    assert line.isprintable()
    assert len(line) < 1100


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a\nb=1", r"--set a\nb=1: 'a\nb': is no known key"),
        ("\x1b[2J", r"--set \x1b[2J: must be path=value"),
        (f"seed={'x' * 5000}", f"--set seed={'x' * 55}... (5,005 characters): seed: must be"),
        (".".join("a" * 500) + "=1", "leads through more than 50 levels; shorten it"),
        ("inner.steps.\u202e=1", r"inner.steps.\u202e"),
    ],
)
def test_hostile_overrides(pipeline, override, says) -> None:
    code, output = mfk("check", pipeline, "--set", override)
    assert (code, says in output) == (2, True), output
    assert output.rstrip("\n").isprintable()
    assert len(output) < 1100


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"model.backbone.width={10**6}", "model.backbone.width: must be at most 65536, got 1000000; lower it"),
        (f"model.backbone.width={2**63}", "model.backbone.width: must be a whole number of at most 64 bits"),
        (f"dataset.image_size={10**6}", "dataset.image_size: must be at most 4096, got 1000000; lower it"),
        (f"tasks.query={10**6}", "tasks.query: must be at most 100000, got 1000000; lower it"),
        (f"evaluate.shot={10**18}", "evaluate.shot: must be at most 100000, got 1000000000000000000; lower it"),
        (f"evaluate.views={10**6}", "evaluate.views: must be at most 10000, got 1000000; lower it"),
        (f"evaluate.shot=[1, {2**70}]", "evaluate.shot.1: must be a whole number of at most 64 bits"),
        (f"inner.steps={10**9}", "inner.steps: must be at most 100000"),
        ("outer.optimizer={name: adam, beta1: 1}", "outer.optimizer.beta1: must be a number of at least 0 and below 1, got 1.0"),
        ("outer.optimizer={name: sgd, nesterov: true, momentum: 0}", "outer.optimizer: nesterov needs momentum, got momentum 0; set momentum"),
        ("inner.rule={name: sgd, nesterov: true}", "inner.rule: nesterov needs momentum, got momentum 0"),
        (
            "objective={name: bootstrapped_kl, delta: 0}",
            "objective: a grounded target takes its last step on the query, so delta must be at least 1, got 0; raise delta",
        ),
        ("dataset={name: glyphs, min_faces: 37}", "dataset: min_faces must be at most the number of faces, 16, got 37; lower it"),
        ("model.backbone={name: mlp, widths: []}", "model.backbone: mlp needs at least one layer, got widths []"),
    ],
)
def test_what_a_run_would_die_of_is_found_by_check(pipeline, override, says) -> None:
    code, output = mfk("check", pipeline, "--set", override)
    assert (code, f": {says}" in output) == (2, True), output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["tasks.query=100000", "tasks.meta_batch=100000"], "tasks: the 30,000,600,000 images of an outer step need at least 35,764 GiB of memory, and there are "),
        (["model.backbone={name: mlp, widths: [65536, 65536, 65536]}", "dataset.image_size=128"], "model: its 9,663,873,024 parameters, their gradient and the adapted ones need"),
        (["evaluate.views=10000", "evaluate.way=50000"], "evaluate: the 500,100,000 images of an episode need at least 596 GiB"),
        (["dataset.image_size=4096", "dataset.mode=color"], "60 images of 4096x4096 pixels need at least 3 GiB of memory, and there are 2.0; lower dataset.image_size, or raise METAFLOWKIT_CACHE_SIZE"),
    ],
)  # fmt: skip
def test_what_does_not_fit_into_memory_is_said_before_it_is_built(pipeline, tmp_path, monkeypatch, overrides, says) -> None:
    monkeypatch.setattr("metaflowkit.memory.machine_memory", lambda device=None: 2.0 * 2**30)
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", "1 GiB")
    arguments = [part for override in overrides for part in ("--set", override)]
    code, output = mfk("run", pipeline, "--run-dir", tmp_path / "run", *arguments)
    assert (code, says in output) == (1, True), output
    assert not (tmp_path / "run").exists()


def test_an_endless_file_is_not_read_to_its_end() -> None:
    code, output = mfk("check", "/dev/zero")
    assert (code, output) == (2, "/dev/zero: holds more than 4,000,000 characters; give the YAML file of a pipeline or a search\n")


def test_names_of_classes_reach_the_terminal_escaped(shapes, tmp_path, write) -> None:
    for i in range(5):
        (shapes / f"class{i}").rename(shapes / f"\x1b[31m\u202e{i}\n")
    lists = {part: write("\n".join(f"class{c}" for c in members), f"{part}.txt") for part, members in (("train", "567"), ("val", "8"), ("test", "93"))}
    path = write(SMALL.replace("ROOT", str(shapes)), "\x1b[2Jname.yaml")
    code, output = mfk("run", path, "--run-dir", tmp_path / "r\x1bun", "--set", f"dataset.split_files={{{', '.join(f'{k}: {v}' for k, v in lists.items())}}}")
    assert code == 1
    assert "there is no class 'class3'" in output
    assert output.rstrip("\n").isprintable()
    code, output = mfk("check", path)
    assert output == rf"{tmp_path}/\x1b[2Jname.yaml: valid" + "\n"
    code, output = mfk("run", path, "--run-dir", tmp_path / "r\x1bun")
    assert code == 0, output
    assert r"run directory " + str(tmp_path) + r"/r\x1bun" in output
    assert all(line.isprintable() for line in output.splitlines())


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


@pytest.mark.parametrize("name", ["best.pt", "step-0000004.pt"])
def test_a_checkpoint_of_another_run_is_found_before_it_is_used(name, pipeline, tmp_path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    assert mfk("run", pipeline, "--run-dir", other, "--quiet", "--set", "model.backbone.width=8")[0] == 0
    (run / "checkpoints" / name).write_bytes((other / "checkpoints" / name).read_bytes())
    before = files(run)
    code, output = mfk("run", pipeline, "--run-dir", run, "--resume")
    assert (code, f"checkpoints/{name}: belongs to another pipeline; model.backbone.width is 8 there and 4 here; put the file of this run back" in output) == (
        1,
        True,
    ), output
    assert files(run) == before
    code, output = mfk("evaluate", run, "--weights", "best" if name == "best.pt" else "last")
    assert (code, f"checkpoints/{name}: belongs to another pipeline" in output) == (1, True), output


def test_a_checkpoint_that_is_exchanged_while_the_run_goes_on_is_found_before_the_last_scores(pipeline, tmp_path, monkeypatch) -> None:
    from metaflowkit.training import checkpoint

    run = tmp_path / "run"
    genuine = checkpoint.save

    def other_weights(snapshot: checkpoint.Snapshot, path: Path) -> None:
        if path.name == "best.pt":
            snapshot.model = {n: v[:1] for n, v in snapshot.model.items()}
        genuine(snapshot, path)

    monkeypatch.setattr(checkpoint, "save", other_weights)
    code, output = mfk("run", pipeline, "--run-dir", run, "--quiet")
    assert code == 1
    assert "best.pt: its weights do not fit this model (backbone.blocks.0.conv.weight is (1, 1, 3, 3) there and (4, 1, 3, 3) here; " in output
    assert output.rstrip().endswith("and 9 more); put the file of this run back, or start it again with --overwrite")


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


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes, as on a full disk; Python ignores the signal of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_space_leaves_the_last_checkpoint_whole(pipeline, tmp_path) -> None:
    run = tmp_path / "run"
    assert mfk("run", pipeline, "--run-dir", run, "--quiet")[0] == 0
    (run / "checkpoints" / "step-0000004.pt").unlink()
    before = files(run / "checkpoints")
    with file_size(5000):  # a checkpoint is larger, the journal is not
        code, output = mfk("run", pipeline, "--run-dir", run, "--resume")
    assert (code, "cannot be written (File too large); free space" in output) == (1, True)
    assert files(run / "checkpoints") == before
    assert mfk("run", pipeline, "--run-dir", run, "--resume", "--quiet")[0] == 0


def test_unwritable_run_directory(pipeline, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    code, output = mfk("run", pipeline, "--run-dir", tmp_path / "file" / "run")
    assert (code, "cannot be written (Not a directory); see that the folder is there and may be written" in output) == (1, True)
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        code, output = mfk("run", pipeline, "--run-dir", tmp_path / "locked" / "run")
        assert (code, "cannot be written (Permission denied)" in output) == (1, True)
    code, output = mfk("run", pipeline, "--run-dir", "/proc/metaflowkit-run")
    assert (code, "cannot be written" in output) == (1, True)
