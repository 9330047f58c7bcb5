"""Features of a frozen backbone, computed once: the same run as without, and only where they cannot change."""

from __future__ import annotations

import json

import pytest
import torch

import metaflowkit as mfk
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.datasets import cache
from metaflowkit.evaluation.precomputed import is_constant, with_features
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.training import loop

FROZEN = """
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
augment: []
tasks: {name: labelled, way: 3, shot: 2, query: 2, meta_batch: 2}
model: {backbone: {name: conv4, width: 4, norm: group}, frozen: backbone, head: linear}
inner: {steps: 2, loss: cross_entropy, adapt: head, rule: {name: sgd, lr: 0.1}}
objective: query_loss
outer: {steps: 4}
evaluate: {every: 2, way: 3, query: 2, episodes: 4, val_episodes: 4}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "p.yaml").write_text(FROZEN)
    return tmp_path / "p.yaml"


def numbers(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for value in line.values() if isinstance(value, float)]


def test_the_same_run_and_the_same_measurements(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []
    forward = Conv4.forward
    monkeypatch.setattr(Conv4, "forward", lambda self, x: (calls.append(len(x)), forward(self, x))[1])
    mfk.train(read(path), tmp_path / "features")
    images = sum(calls)
    calls.clear()
    mfk.train(read(path), tmp_path / "again")
    assert sum(calls) < 300 < images  # the cache on disk has them; a few images are embedded by the checks before a run
    monkeypatch.setattr(loop, "with_features", lambda flow: flow)
    mfk.train(read(path), tmp_path / "images")
    torch.testing.assert_close(numbers(tmp_path / "features"), numbers(tmp_path / "images"), rtol=1e-4, atol=1e-5)
    assert numbers(tmp_path / "features") == numbers(tmp_path / "again")
    weights = [torch.load(tmp_path / name / "checkpoints" / "best.pt", weights_only=True)["model"] for name in ("features", "images")]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)


def test_the_flow_holds_features(path) -> None:
    flow = build(read(path))
    features = with_features(flow)
    assert {tuple(examples.x.shape[1:]) for examples in features.splits.values()} == {(4,)}
    assert features.episode(1).support.x.shape == (2, 6, 4)
    torch.testing.assert_close(features.episode(1).support.x, torch.stack([flow.model.backbone(x) for x in flow.episode(1).support.x]), rtol=1e-4, atol=1e-5)
    titles = [entry.title for entry in cache.entries()]
    assert any(title.startswith("features of ") for title in titles)


def test_other_weights_are_other_features(path) -> None:
    one, two = (with_features(build(read(path, [f"seed={seed}"]))) for seed in (0, 1))
    assert not torch.equal(one.splits["test"].x, two.splits["test"].x)


def test_another_precision_is_other_features(path) -> None:
    one, two = (with_features(build(read(path, [f"precision={precision}"]))) for precision in ("float32", "bf16"))
    assert two.splits["test"].x.dim() == 2
    assert not torch.equal(one.splits["test"].x, two.splits["test"].x)


@pytest.mark.slow
def test_settings_that_are_no_weights_are_other_features_too(path) -> None:
    backbone = "model.backbone={{name: torchvision, architecture: squeezenet1_1, size: {}}}"
    small, large = (with_features(build(read(path, [backbone.format(size)]))) for size in (32, 48))
    assert all(torch.equal(a, b) for a, b in zip(small.model.backbone.state_dict().values(), large.model.backbone.state_dict().values()))
    assert small.splits["val"].x.shape == large.splits["val"].x.shape
    assert not torch.allclose(small.splits["val"].x, large.splits["val"].x, atol=1e-3)


@pytest.mark.parametrize("override", [
    "model.frozen=null",
    "model.frozen=[backbone.blocks.0]",
    "model.backbone.norm=batch",
    "model.backbone.norm=frozen",
    "inner.augment=affine",
    "precision=float64",
])  # fmt: skip
def test_where_they_could_change_images_stay_images(path, override) -> None:
    flow = build(read(path, [override]))
    assert not is_constant(flow)
    assert with_features(flow) is flow


def test_with_augmentation_only_held_out_images_are_features(path) -> None:
    flow = with_features(build(read(path, ["augment={level: 1}", "evaluate.readouts=[prototype]"])))
    assert {name: examples.x.dim() for name, examples in flow.splits.items()} == {"train": 4, "val": 2, "test": 2}
    flow = with_features(build(read(path, ["augment={level: 1}", "evaluate.views=2"])))  # the readout adapts on augmented images
    assert {examples.x.dim() for examples in flow.splits.values()} == {4}
    flow = with_features(build(read(path, ["evaluate.readouts=[averaged]"])))
    assert {name: examples.x.dim() for name, examples in flow.splits.items()} == {"train": 2, "val": 4, "test": 4}


def test_a_run_of_features_is_evaluated_and_predicts_from_images(path, tmp_path) -> None:
    mfk.train(read(path), tmp_path / "run")
    scores = mfk.evaluate(mfk.load(tmp_path / "run"), "test", 3, 1, 2, 4, ["prototype"])
    written = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert scores[0].value == next(line["accuracy"] for line in written if line["weights"] == "best" and line["readout"] == "prototype")
    images = build(read(path)).splits["test"]
    firsts = [images.y.tolist().index(c) for c in range(5)]
    x, y = images.x[firsts, 0].numpy(), images.y[firsts].tolist()
    assert mfk.Classifier.from_run(tmp_path / "run").fit(x, y).predict(x).tolist() == y  # each image is its own support
