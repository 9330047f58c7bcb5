"""torchvision's networks as backbones: the same features as theirs, from their files of weights."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import nn

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import BACKBONES
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.adapters.low_rank import LowRank
from metaflowkit.models.backbones.foreign import IMAGENET_MEAN, IMAGENET_STD
from metaflowkit.models.backbones.torchvision_network import TorchvisionNetwork
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.models.weights import load_weights
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from tests.oracles import make_episode, make_learner, relative

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A ResNet-18 of torchvision whose running statistics are those of noise, and its file of weights."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the calls
    with torch.no_grad():
        network.train()(torch.rand(16, *SHAPE))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return network.eval(), path


def test_features_are_those_before_the_classifier_with_inputs_normalised(pretrained) -> None:
    network, path = pretrained
    backbone = TorchvisionNetwork(SHAPE, pretrained=True)
    load_weights(backbone, path)
    x = torch.rand(5, *SHAPE)
    normalised = torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(x)
    with torch.no_grad():
        features = backbone.train()(x)  # in training mode too, running statistics are used and not changed
        torch.testing.assert_close(network.fc(features), network(normalised))
        torch.testing.assert_close(backbone(x[:1]), features[:1], rtol=1e-4, atol=1e-5)
    assert backbone.features == 512
    assert torch.equal(backbone.net.bn1.running_mean, network.bn1.running_mean)


def test_grey_images_are_three_equal_channels_and_size_resizes(pretrained) -> None:
    grey, colour = (TorchvisionNetwork((channels, 20, 20), size=32, pretrained=True) for channels in (1, 3))
    for backbone in (grey, colour):
        load_weights(backbone, pretrained[1])
    x = torch.rand(2, 1, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)))
        resized = nn.functional.interpolate(x.repeat(1, 3, 1, 1), (32, 32), mode="bilinear")
        other = TorchvisionNetwork(SHAPE, pretrained=True)
        load_weights(other, pretrained[1])
        torch.testing.assert_close(grey(x), other(resized))


def test_normalisation_is_part_of_the_weights() -> None:
    chosen = TorchvisionNetwork(SHAPE, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    plain = TorchvisionNetwork(SHAPE)
    assert chosen.state_dict()["std"].flatten().tolist() == [1.0, 2.0, 4.0]
    assert plain.state_dict()["mean"].flatten().tolist() == [0.0, 0.0, 0.0]
    plain.load_state_dict(chosen.state_dict())
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(plain(x), chosen(x))


def test_norms(pretrained) -> None:
    x = torch.rand(6, *SHAPE)
    current = TorchvisionNetwork(SHAPE, norm="batch", pretrained=True)
    load_weights(current, pretrained[1])  # its running statistics are left out
    with torch.no_grad():
        assert not torch.allclose(current(x)[:2], current(x[:2]), rtol=1e-2)
    for norm in ("per_step", "frozen"):
        stored = TorchvisionNetwork(SHAPE, norm=norm, pretrained=True)
        load_weights(stored, pretrained[1])
        assert len(stored_norms(stored)) == 20
        assert torch.equal(stored.net.bn1.weight, pretrained[0].bn1.weight)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in TorchvisionNetwork(SHAPE, norm="group").modules())


@pytest.mark.parametrize(
    "architecture",
    [
        "squeezenet1_1",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v2")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("regnet_y_400mf", "swin_t")),
    ],
)
def test_other_architectures_take_their_own_files(architecture, tmp_path) -> None:
    torch.manual_seed(1)
    inception = {"init_weights": False, "transform_input": True} if architecture == "googlenet" else {}  # as its own weights are for
    network = torchvision.models.get_model(architecture, weights=None, **inception).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = TorchvisionNetwork((3, 64, 64), architecture, pretrained=True, mean=[0.0] * 3, std=[1.0] * 3)
    load_weights(backbone, tmp_path / "w.pth")
    x = torch.rand(2, 3, 64, 64)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    read: list[torch.Tensor] = []
    layers[-1].register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    with torch.no_grad():
        features = backbone(x)
        network(x)
    expected = read[0] if read[0].dim() == 2 else nn.functional.adaptive_avg_pool2d(read[0].relu(), 1).flatten(1)  # SqueezeNet's classifier is a convolution
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("norm", ["running", "batch"])
@pytest.mark.parametrize("adapted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_engines_give_the_same_meta_gradient(pretrained, norm, adapted) -> None:
    backbone = TorchvisionNetwork((1, 16, 16), norm=norm, pretrained=True)
    load_weights(backbone, pretrained[1])
    if adapted:
        LowRank(rank=1)(backbone)
    engines = [HigherEngine(), VectorizedEngine(chunk=1), VectorizedEngine()]
    learner = make_learner(SGD(lr=1e-5), CrossEntropy(), QueryLoss(), Prototype(), backbone, steps=1)
    episode = make_episode(way=2, shot=2, query=1, shape=(1, 16, 16))
    one, two, three = (engine.outcome(learner, episode).gradients for engine in engines)
    assert set(one) == {f"backbone.{name}" for name, p in backbone.named_parameters() if p.requires_grad}
    assert any(g.abs().max() > 0 for g in one.values())
    bound = 1e-9 if norm == "running" else 1e-6  # statistics of four values amplify rounding
    assert relative(one, two) < bound
    assert relative(three, two) < bound


@pytest.mark.parametrize(("settings", "says"), [
    ({"architecture": "resnet19"}, "architecture: torchvision has no classification network 'resnet19'; did you mean 'resnet18'?"),
    ({"architecture": "vit_b_16"}, "cannot read images of 32x32 pixels (Wrong image height! Expected 224 but got 32!); set size to the side that it was made for"),
    ({"mean": [0.5]}, "mean and std need three numbers each, one per channel, got [0.5] and None; write both, or neither"),
    ({"mean": [0.5] * 3, "std": [1.0, 0.0, 1.0]}, "std must be above 0, got [1.0, 0.0, 1.0]; write the deviation of each channel"),
])  # fmt: skip
def test_refusals(settings, says) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        BACKBONES.build(Choice("torchvision", settings), shape=SHAPE)


def test_other_examples_than_grey_and_colour_images() -> None:
    with pytest.raises(ValueError, match=re.escape("reads grey or colour images [C, H, W], got examples of shape (4, 32, 32); choose another backbone")):
        TorchvisionNetwork((4, 32, 32))
