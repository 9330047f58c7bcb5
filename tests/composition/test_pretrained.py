"""Weights, frozen parts and adapters of a pipeline, from the YAML to a run that is evaluated without the file."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch

import metaflowkit as mfk
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.models.backbones.conv4 import Conv4
from tests.small import SMALL


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(5)
    path = tmp_path / "weights.pt"
    torch.save(Conv4((1, 28, 28), width=4).state_dict(), path)
    return path


def trained(flow) -> set[str]:
    return set(flow.learner.trained(dict(flow.model.named_parameters())))


def test_a_run_begins_with_the_weights_says_which_and_needs_them_no_more(write, weights, tmp_path) -> None:
    pipeline = read(write(SMALL), [f"model.weights={weights}"])
    stored = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, build(pipeline).model.state_dict()[f"backbone.{name}"]) for name, value in stored.items())
    report = mfk.train(pipeline, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    scores = mfk.evaluate(mfk.load(tmp_path / "run"), "test", 3, 1, 2, 4, ["prototype"])
    assert scores[0].value == report.after[0].value
    with pytest.raises(ConfigError, match=rf"model\.weights: {re.escape(str(weights))}: there is no such file"):
        build(pipeline)
    mfk.train(read(write(SMALL), [f"model.weights={tmp_path / 'run' / 'checkpoints' / 'best.pt'}"]), tmp_path / "other")  # one run's weights begin another


def test_frozen_parts_stay_and_modules_are_named_without_a_pattern(write, tmp_path) -> None:
    pipeline = read(
        write(SMALL), ["model.frozen=[backbone.blocks.0, backbone.blocks.1.conv.weight]", "model.head=linear", "inner.loss=cross_entropy", "inner.adapt=head"]
    )
    flow = build(pipeline)
    before = {name: value.clone() for name, value in flow.model.state_dict().items()}
    assert trained(flow) == {name for name in before if not name.startswith("backbone.blocks.0.") and name != "backbone.blocks.1.conv.weight"}
    assert set(flow.learner.fast(dict(flow.model.named_parameters()))) == {"head.weight", "head.bias"}
    mfk.train(pipeline, tmp_path / "run")
    after = mfk.load(tmp_path / "run", "last").model.state_dict()
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == trained(flow)


def test_an_adapter_alone_is_trained(write, weights, tmp_path) -> None:
    pipeline = read(write(SMALL), [f"model.weights={weights}", "model.adapter={name: low_rank, rank: 2}"])
    flow = build(pipeline)
    assert trained(flow) == {f"backbone.blocks.{i}.conv.{part}.weight" for i in range(4) for part in ("down", "up")}
    mfk.train(pipeline, tmp_path / "run")
    after, stored = mfk.load(tmp_path / "run", "last").model.state_dict(), torch.load(weights, weights_only=True)
    assert all(torch.equal(after[f"backbone.blocks.{i}.conv.layer.weight"], stored[f"blocks.{i}.conv.weight"]) for i in range(4))
    assert after["backbone.blocks.0.conv.up.weight"].abs().max() > 0


@pytest.mark.parametrize(("overrides", "says"), [
    (["model.frozen=backbon"], r"model\.frozen\.0: matches no parameter, got 'backbon'; did you mean 'backbone'\?"),
    (["model.frozen=backbone", "inner.steps=0"], "model: has no parameter to learn, since all have requires_grad=False; leave some of them trainable"),
    (["model.frozen=backbone"], r"inner\.adapt: the inner steps move nothing, since every parameter that it names has requires_grad=False"),
    (["model.adapter={name: low_rank, layers: [fc]}"], r"model\.adapter: low_rank finds no linear layer or convolution named as fc in the backbone"),
    (["model.adapter=lora"], "model.adapter: there is no adapter 'lora'; did you mean 'low_rank'"),
    (["model.backbone={name: torchvision, architecture: resnet19}"], r"model\.backbone: architecture: torchvision has no classification network 'resnet19'"),
])  # fmt: skip
def test_mistakes_bear_their_place(write, overrides, says) -> None:
    with pytest.raises(ConfigError, match=says):
        build(read(write(SMALL), overrides))
