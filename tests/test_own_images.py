"""A user's own images, from a folder to an accuracy, by the command line: without classes, with a second root, with splits by image."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.training import checkpoint

PIPELINE = """
dataset: {name: folder, root: photos, image_size: 16}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}
model: {backbone: {name: conv4, width: 4}}
inner: {steps: 1}
outer: {steps: 4}
evaluate: {every: 2, way: 2, query: 2, episodes: 4, val_episodes: 4, readouts: [prototype]}
"""


def mfk(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def photos(fields, tmp_path) -> Path:
    """250 images directly in a folder."""
    with zipfile.ZipFile(fields) as archive:
        for name in archive.namelist():
            (tmp_path / "photos" / Path(name).name).parent.mkdir(exist_ok=True)
            (tmp_path / "photos" / Path(name).name).write_bytes(archive.read(name))
    return tmp_path / "photos"


def test_images_without_classes_train_and_are_measured_on_others(photos, fields, write, tmp_path) -> None:
    run, pipeline = tmp_path / "run", write(PIPELINE)
    code, output = mfk("run", pipeline, "--run-dir", run, "--set", f"dataset.root={photos}")
    assert code == 0, output
    assert "250 training images, val 0 classes, test 0 classes" in output
    unmeasured, kept, place, following = output.splitlines()[-4:]
    assert unmeasured.startswith("test accuracy was not measured, since there are no test classes; mfk evaluate measures it on other images, in classes")
    assert kept.startswith("no validation classes, so the weights of the last step, 4, were kept;")
    assert place == f"run directory: {run}"
    assert following == f"next: mfk run {run / 'pipeline.yaml'} --set seed=1"
    best, last = (checkpoint.load(run / "checkpoints" / name) for name in ("best.pt", "step-0000004.pt"))
    assert all(torch.equal(value, last.model[name]) for name, value in best.model.items())
    assert "test accuracy was not measured" in (run / "report.md").read_text()
    others = f"dataset={{name: folder, root: {fields}, image_size: 16, mode: color, fractions: {{test: 1.0}}}}"
    code, output = mfk("evaluate", run, "--set", others, "--readout", "prototype")
    assert (code, output.startswith("test 2-way 1-shot, prototype: ")) == (0, True)
    assert (json.loads((run / "evaluations.jsonl").read_text())["step"], code) == (4, 0)
    code, output = mfk("evaluate", run)
    assert (code, output) == (
        1,
        "mfk: split 'test': has no classes, so accuracy cannot be measured on it; choose another split, or another data set with --set dataset=...\n",
    )


def test_tasks_that_read_labels_are_refused_on_them(photos, write, tmp_path) -> None:
    labelled = ["--set", "tasks=labelled", "--set", "inner.loss=cross_entropy"]
    code, output = mfk("run", write(PIPELINE), "--run-dir", tmp_path / "run", "--set", f"dataset.root={photos}", *labelled)
    says = "mfk: tasks: 'labelled' reads labels, and the training images have no classes; choose tasks: views, or give images in a folder per class\n"
    assert (code, output) == (1, says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["labelled_root", "split_by"])
def test_the_report_says_what_training_may_have_seen(photos, fields, write, tmp_path, how) -> None:
    settings = {
        "labelled_root": [f"dataset.root={photos}", f"dataset.labelled_root={fields}"],
        "split_by": [f"dataset.root={fields}", "dataset.split_by=image"],
    }
    code, output = mfk("run", write(PIPELINE), "--run-dir", tmp_path / "run", *(part for text in settings[how] for part in ("--set", text)))
    assert code == 0, output
    assert {
        "labelled_root": "; training images have no classes, so the measured ones may be among them; ",
        "split_by": "; same classes in training and test (other images of them), not new classes; ",
    }[how] in output
    assert "best validation accuracy at step" in output


def test_real_images_of_every_layout(data, write, tmp_path) -> None:
    with zipfile.ZipFile(data / "cifar_fs" / "cifar_fs.zip") as archive:
        classes: dict[str, list[str]] = {}
        for name in archive.namelist():
            if name.endswith(".png"):
                classes.setdefault(name.split("/")[1], []).append(name)
        chosen = sorted(classes)[:6]
        for c, name in enumerate(chosen):
            for i, member in enumerate(classes[name][:10]):
                split = ("train", "train", "val", "val", "test", "test")[c]
                for path in (f"flat/{name}{i}.png", f"classes/{name}/{i}.png", f"splits/{split}/{name}/{i}.png"):
                    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / path).write_bytes(archive.read(member))
    for layout in ("flat", "classes", "splits"):
        shares = ["--set", "dataset.fractions={train: 0.34, val: 0.33, test: 0.33}"] if layout == "classes" else []
        code, output = mfk("run", write(PIPELINE), "--run-dir", tmp_path / layout / "run", "--set", f"dataset.root={tmp_path / layout}", "--quiet", *shares)
        assert code == 0, output
        assert ("not measured" in output) is (layout == "flat")
