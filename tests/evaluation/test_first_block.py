"""A network's first block computed once for each image: the same features and scores as set by set, fewer convolutions, and only where both agree."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.errors import BrokenContract
from metaflowkit.evaluation import first_block
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.feature_table import feature_table
from metaflowkit.evaluation.first_block import FirstBlockTable, first_block_table
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.batch_statistics import FirstBlock
from tests.small import SMALL

MANY = 10**9  # examples shown


def flow_of(*overrides: str):
    return build(pipeline_of(parse_yaml(SMALL, "small.yaml").plain(), ["model.backbone.norm=batch", *overrides]))


def rows_of(flow, sets: int, size: int):
    return torch.randint(len(flow.splits["test"].x), (sets, size), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def apart(flow, rows):
    """The features of each set by torch's own layers, in float64."""
    exact = copy.deepcopy(flow.model.backbone).double()
    return torch.stack([exact(flow.inputs(flow.splits["test"].x[of_set]).double().contiguous()) for of_set in rows])


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_features_are_those_of_each_set_in_float64(scale) -> None:
    flow = flow_of()
    block = flow.model.backbone.blocks[0]
    nn.init.uniform_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    with torch.no_grad():
        block.conv.weight.mul_(scale).add_(3 * scale)  # values whose mean is far from 0
    table = first_block_table(flow, flow.splits["test"].x)
    for sets, size in ((7, 5), (1, 25), (40, 1)):
        rows = rows_of(flow, sets, size)
        features, expected = table(rows), apart(flow, rows)
        assert features.dtype == torch.float32
        assert features.shape == expected.shape
        assert not features.requires_grad
        assert (features - expected).abs().max() < 1e-4 * expected.abs().max()


def test_rows_are_of_the_image_and_not_of_its_set() -> None:
    flow = flow_of()
    table, rows = first_block_table(flow, flow.splits["test"].x), rows_of(flow, 3, 5)
    torch.testing.assert_close(table(rows[:, [3, 0, 4, 1, 2]]), table(rows)[:, [3, 0, 4, 1, 2]], rtol=1e-4, atol=1e-5)
    other = rows.clone()
    other[:, 0] = (other[:, 0] + 1) % len(flow.splits["test"].x)
    assert not torch.allclose(table(other)[:, 1:], table(rows)[:, 1:], rtol=1e-3)  # batch normalisation sees the whole set


def test_scores_are_those_without_and_each_image_is_convolved_once(monkeypatch) -> None:
    flow, seen = flow_of(), []
    count, block_of = len(flow.splits["test"].x), Conv4.first_block

    def noted(self) -> FirstBlock:
        block = block_of(self)
        return block._replace(convolution=lambda x: (seen.append(len(x)), block.convolution(x))[1])

    def scores(flow):
        return [score for shot in (1, 5) for score in evaluate(flow, "test", 5, shot, 5, 200, ["prototype"])]

    monkeypatch.setattr(Conv4, "first_block", noted)
    once = scores(flow)
    assert count <= sum(seen) <= count + 1  # one to see the shape
    monkeypatch.delattr(Conv4, "first_block")
    for one, other in zip(once, scores(flow_of()), strict=True):
        assert one.setting == other.setting
        assert sum(a != b for a, b in zip(one.each, other.each)) <= 1  # a tie that rounding decides


def test_readouts_that_adapt_need_no_table(monkeypatch) -> None:
    flow = flow_of()
    monkeypatch.setattr(Conv4, "first_block", lambda self: pytest.fail("nothing is embedded"))
    evaluate(flow, "test", 5, 1, 5, 200, ["adapted"])  # as many as make a table where features are read


@pytest.mark.parametrize("change", ["group", "running statistics", "a negative scale", "a hook", "another rest", "no method", "too large"])
def test_elsewhere_there_is_none(change, monkeypatch) -> None:
    flow = flow_of(*(["model.backbone.norm=group"] if change == "group" else []))
    x, backbone = flow.splits["test"].x, flow.model.backbone
    if change == "running statistics":
        backbone.blocks[0].norm = nn.BatchNorm2d(backbone.blocks[0].norm.num_features)
    elif change == "a negative scale":
        backbone.blocks[0].norm.weight.data[0] = -0.1
    elif change == "a hook":
        backbone.blocks[0].norm.register_forward_hook(lambda module, inputs, output: None)
    elif change == "another rest":
        monkeypatch.setattr(Conv4, "first_block", lambda self: FirstBlock(self.blocks[0].conv, self.blocks[0].norm, lambda x: self.blocks[1:](x).flatten(1)))
    elif change == "no method":
        monkeypatch.delattr(Conv4, "first_block")
    elif change == "too large":
        monkeypatch.setattr(first_block, "MEMORY", 100)
    assert first_block_table(flow, x) is None
    if change != "group":
        assert feature_table(flow, "test", MANY) is None


def test_a_measurement_of_few_images_makes_none() -> None:
    flow = flow_of()
    count = len(flow.splits["test"].x)
    assert feature_table(flow, "test", 2 * count - 1) is None
    table = feature_table(flow, "test", 2 * count)
    assert isinstance(table, FirstBlockTable)
    assert feature_table(flow, "test", 2 * count - 1) is table  # since it is there


def test_of_other_precisions() -> None:
    assert first_block_table(flow_of("precision=bf16"), torch.zeros(3, 1, 28, 28)) is None
    exact = flow_of("precision=float64")
    table, rows = first_block_table(exact, exact.splits["test"].x), rows_of(exact, 4, 5)
    torch.testing.assert_close(table(rows), apart(exact, rows), rtol=1e-10, atol=1e-10)


class _Shallow(nn.Module):
    """A network from outside: torch's own layers, ReLU before the pooling."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5, track_running_stats=False), nn.Conv2d(5, 6, 3, stride=2)

    def forward(self, x):
        return self.second(nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 2)).mean((2, 3))

    def first_block(self) -> FirstBlock:
        return FirstBlock(self.first, self.norm, lambda pooled: self.second(pooled.relu()).mean((2, 3)))


def test_a_network_from_outside_may_name_its_first_block() -> None:
    flow = flow_of()
    flow.model.backbone = _Shallow()
    table, rows = feature_table(flow, "test", MANY), rows_of(flow, 4, 10)
    assert isinstance(table, FirstBlockTable)
    torch.testing.assert_close(table(rows).double(), apart(flow, rows), rtol=1e-4, atol=1e-5)


def test_what_is_no_first_block_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(Conv4, "first_block", lambda self: (self.blocks[0].conv, self.blocks[0].norm))
    text = r"model.backbone: Conv4 must return FirstBlock\(convolution, norm, rest\) from first_block, got a tuple of 2; return one, or leave the method out"
    with pytest.raises(BrokenContract, match=text):
        evaluate(flow_of(), "test", 5, 1, 5, 200, ["prototype"])
