"""mfk export: what is written gives the run's features and answers, in programs of their own that never import this package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import CheckpointError, RunError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.prediction import export as module
from metaflowkit.prediction.classifier import Classifier
from metaflowkit.prediction.export import export
from metaflowkit.reporting.train import train
from tests.small import SMALL

FILES = {"README.md", "card.json", "embedding.pt2", "example.py", "pipeline.yaml", "weights.safetensors"}
WITHOUT_PACKAGE = "import runpy, sys\nsys.modules['metaflowkit'] = None\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"


def example_answers(folder: Path, support: Path, files: list[str]) -> list[list[str]]:
    """File and class of each line that the exported example prints, in a process that cannot import this package."""
    program = [sys.executable, "-W", "ignore", "-c", WITHOUT_PACKAGE, str(folder / "example.py"), str(support), *files]
    return [line.split("\t") for line in subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()]


@pytest.mark.slow
def test_the_example_answers_as_the_classifier_without_this_package(runs, folders, tmp_path) -> None:
    support, new = folders
    shown = CliRunner().invoke(main, ["export", str(runs["per_step"]), "-o", str(tmp_path / "out"), "--data-licence", "OFL"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"embedding.onnx"}
    files = sorted(map(str, new.iterdir()))
    answers = example_answers(tmp_path / "out", support, files)
    labelled = sorted(support.rglob("*.png"))
    classifier = Classifier(runs["per_step"]).fit(labelled, [path.parent.name for path in labelled])
    assert answers == [[file, label] for file, label in zip(files, classifier.predict(files))]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["data_licence"], card["input"]["shape"], card["normalisation"]) == ("OFL", ["n", 1, 28, 28], "each image by itself")
    assert card["test"]["3-way 1-shot, prototype"].keys() == {"untrained", "best"}
    assert "Licence of the data: OFL" in (tmp_path / "out" / "README.md").read_text()
    assert read(tmp_path / "out" / "pipeline.yaml").plain() == read(runs["per_step"] / "pipeline.yaml").plain()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "float64"])
def test_a_run_of_another_precision_is_exported_in_float32(precision, write, tmp_path) -> None:
    train(read(write(SMALL), [f"precision={precision}", "model.backbone.norm=group"]), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    program = torch.export.load(tmp_path / "out" / "embedding.pt2").module()
    assert program(torch.rand(3, 1, 28, 28)).dtype == torch.float32
    assert f"precision: {precision}" in (tmp_path / "out" / "pipeline.yaml").read_text()


@pytest.mark.parametrize("norm", ["per_step", "batch"])
def test_programs_and_weights_give_the_features_of_the_run(runs, tmp_path, norm) -> None:
    import onnxruntime

    export(runs[norm], tmp_path / "out")
    flow = Classifier(runs[norm]).loaded()[0]
    x = torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = embed(flow.model, flow.inputs(x)[None])[0]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "embedding.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(tmp_path / "out" / "embedding.pt2").module()
    fresh = build(read(runs[norm] / "pipeline.yaml"), train=False)
    fresh.model.load_state_dict(load_file(tmp_path / "out" / "weights.safetensors"))
    features = (program(x), torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), embed(fresh.model, fresh.inputs(x)[None])[0])
    for each in features:
        assert (each - expected).abs().max() < 1e-5 * expected.abs().max()
    of_one = program(x[:1])[0]
    assert torch.allclose(of_one, expected[0], rtol=1e-4, atol=1e-5) is (norm == "per_step")
    assert ("Features of an image depend on the others" in (tmp_path / "out" / "README.md").read_text()) is (norm == "batch")


@pytest.mark.slow
def test_colours_and_another_metric_in_the_example(runs, folders, tmp_path, monkeypatch) -> None:
    support, new = folders
    monkeypatch.setattr(module, "NEEDED_FOR_ONNX", ("no_such_module",))
    run = shutil.copytree(runs["group"], tmp_path / "run")
    from metaflowkit.training import checkpoint

    snapshot = checkpoint.load(run / "checkpoints" / "best.pt")
    snapshot.shape = [3, 28, 28]  # as if it had learned from colours
    weight = snapshot.model["backbone.blocks.0.conv.weight"]
    snapshot.model["backbone.blocks.0.conv.weight"] = torch.cat([weight, -weight, 0.5 * weight], 1)
    text = (run / "pipeline.yaml").read_text().replace("metric: cosine", "metric: euclidean")
    (run / "pipeline.yaml").write_text(text)
    snapshot.pipeline = text
    checkpoint.save(snapshot, run / "checkpoints" / "best.pt")
    lines = export(run, tmp_path / "out")
    assert lines[-1] == "embedding.onnx is left out, since no_such_module is not installed; pip install 'metaflowkit[onnx]'"
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    for i, path in enumerate([*support.rglob("*.png"), *new.iterdir()]):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.stack([pixels, np.roll(pixels, i, 0), 255 - pixels], -1)).resize((40, 31)).save(path)
    files = sorted(map(str, new.iterdir()))
    answers = example_answers(tmp_path / "out", support, files)
    labelled = sorted(support.rglob("*.png"))
    classifier = Classifier(run).fit(labelled, [path.parent.name for path in labelled])
    assert [label for _, label in answers] == list(classifier.predict(files))


def test_what_cannot_be_exported_leaves_nothing_behind(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "NEEDED_FOR_ONNX", ("no_such_module",))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files already; choose a new folder with -o"):
        export(runs["batch"], tmp_path / "full")
    empty = shutil.copytree(runs["batch"], tmp_path / "empty")
    for path in (empty / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError):
        export(empty, tmp_path / "out")
    monkeypatch.setattr(module, "plain_network", lambda backbone: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8)))
    with pytest.raises(RunError, match=r"embedding.pt2: its features differ|The size of tensor"):
        export(runs["batch"], tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"]
    assert os.listdir(tmp_path / "full") == ["mine.txt"]
