"""Low-rank adapters against W + s U D written out, and their meta-gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.adapters.low_rank import LowRank
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, finite_difference, make_episode, make_learner


class Small(nn.Module):
    """A convolution with stride and padding, a depthwise one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1, groups=4)
        self.linear, self.features = nn.Linear(4, 5), 5

    def forward(self, x):
        return self.linear(self.depthwise(self.conv(x)).mean((2, 3)))


def test_it_begins_as_the_backbone_and_trains_the_terms_alone() -> None:
    torch.manual_seed(0)
    backbone, x = Small(), torch.rand(3, 2, 8, 8)
    expected = backbone(x)
    LowRank(rank=2)(backbone)
    assert torch.equal(backbone(x), expected)
    trained = {name: tuple(p.shape) for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"conv.down.weight": (2, 2, 3, 3), "conv.up.weight": (4, 2, 1, 1), "linear.down.weight": (2, 4), "linear.up.weight": (5, 2)}


def test_the_term_is_that_of_a_dense_layer() -> None:
    torch.manual_seed(0)
    backbone, x = Small(), torch.rand(3, 2, 8, 8)
    LowRank(rank=2, scale=3.0)(backbone)
    for layer in (backbone.conv, backbone.linear):
        nn.init.normal_(layer.up.weight)
    conv, linear = backbone.conv, backbone.linear
    kernel = conv.layer.weight + 1.5 * torch.einsum("or,rihw->oihw", conv.up.weight[:, :, 0, 0], conv.down.weight)
    h = F.conv2d(x, kernel, conv.layer.bias, stride=2, padding=1)
    expected = F.linear(backbone.depthwise(h).mean((2, 3)), linear.layer.weight + 1.5 * linear.up.weight @ linear.down.weight, linear.layer.bias)
    torch.testing.assert_close(backbone(x), expected)


def test_layers_by_name() -> None:
    backbone = Small()
    LowRank(layers=["lin*"])(backbone)
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad} == {"linear"}
    with pytest.raises(ValueError, match="low_rank finds no linear layer or convolution named as nothing in the backbone, which has Conv2d, Linear"):
        LowRank(layers=["nothing"])(Small())


@pytest.mark.parametrize("engine", [HigherEngine(), VectorizedEngine(chunk=1), VectorizedEngine()], ids=["higher", "one by one", "all at once"])
def test_meta_gradient_of_the_terms(engine) -> None:
    torch.manual_seed(0)
    backbone = Smooth()
    LowRank(rank=2)(backbone)
    nn.init.normal_(backbone.layers[0].up.weight)
    learner = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(temperature=1.0), backbone)
    episode = make_episode()
    assert set(engine.outcome(learner, episode).gradients) == {"backbone.layers.0.down.weight", "backbone.layers.0.up.weight"}
    for difference, product in finite_difference(engine, learner, episode):
        assert difference == pytest.approx(product, rel=1e-7)
