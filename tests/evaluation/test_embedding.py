"""Sets embedded in one pass have the features that each has alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from metaflowkit.composition.inputs import channels_last
from metaflowkit.evaluation.embedding import VALUES, embed
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.backbones.resnet12 import ResNet12
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model


def images(*shape: int) -> Tensor:
    return channels_last(torch.rand(shape, generator=torch.Generator().manual_seed(0)))


class Noting(nn.Module):
    """Notes the size of every batch, and whether grey images came with channels last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.batches = network, []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        assert x.dim() != 4 or x.stride(1) == 1
        return self.network(x)


def model(network: nn.Module) -> Model:
    return Model(Noting(network), Linear(4, 2))


def apart(model: Model, x: Tensor) -> Tensor:
    """Each set in torch's own layers, in float64."""
    exact = copy.deepcopy(model.backbone.network).double()
    with torch.no_grad():
        return torch.stack([exact(one.double().contiguous()) for one in x])


def with_negative_scales(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network


def odd(*, track: bool = False) -> nn.Module:
    norm = nn.BatchNorm2d(6, affine=track, track_running_stats=track)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), norm, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9 * 9, 5), nn.BatchNorm1d(5))


NETWORKS = {
    "conv4": lambda: Conv4((1, 20, 20), width=8),
    "conv4, scales below zero": lambda: with_negative_scales(Conv4((1, 20, 20), width=8)),
    "conv4, group": lambda: Conv4((1, 20, 20), width=8, norm="group"),
    "resnet12": lambda: with_negative_scales(ResNet12((1, 20, 20), width=4)),
    "norms of other kinds": odd,
    "running statistics": lambda: odd(track=True),
    "running statistics, in use": lambda: odd(track=True).eval(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_each_set_alone(name) -> None:
    torch.manual_seed(0)
    one, x = model(NETWORKS[name]()), images(7, 6, 1, 20, 20)
    before = copy.deepcopy(one.state_dict())
    features = embed(one, x)
    expected = apart(one, x)
    assert one.backbone.batches == [6, 6, 42]  # the first and the last set alone, then all together
    assert features.shape == expected.shape
    assert not features.requires_grad
    assert (features - expected).norm() < 1e-5 * expected.norm()
    assert all(torch.equal(value, before[key]) for key, value in one.state_dict().items())


def test_a_pass_takes_no_more_than_so_many_values() -> None:
    one, x = model(nn.Flatten()), images(5, VALUES // 2 // 400, 1, 20, 20)
    assert torch.equal(embed(one, x), x.flatten(2))
    n = x.shape[1]
    assert one.backbone.batches == [n, n, 2 * n, 2 * n, n]


def test_a_set_too_large_to_share_a_pass_goes_alone_once() -> None:
    one, x = model(nn.Flatten()), images(3, VALUES // 400, 1, 20, 20)
    embed(one, x)
    assert one.backbone.batches == 3 * [x.shape[1]]


class Centred(nn.Module):
    """Mixes the examples of a batch by means of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).flatten(1)


class Brightest(nn.Module):
    """Divides by the largest value of the batch, which is the same for a set that holds it alone and beside others."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / x.max()).flatten(1)


class Few(nn.Module):
    """Takes so many examples and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.arange(6.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + self.place[: len(x), None]


@pytest.mark.parametrize("network", [Centred(), Brightest(), Few()], ids=["mixes", "mixes by its extremes", "refuses"])
def test_a_network_that_cannot_take_several_sets_takes_each_alone(network) -> None:
    one, x = model(network), images(4, 6, 1, 8, 8)
    x[1:] *= 0.5
    torch.testing.assert_close(embed(one, x), torch.stack([network(s).detach() for s in x]))
    assert one.backbone.batches[-4:] == [6, 6, 6, 6]


def test_an_error_of_the_network_itself_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        embed(model(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))), images(4, 6, 1, 8, 8))


def test_hooks_see_every_set_alone() -> None:
    one, sizes = model(Conv4((1, 20, 20), width=8)), []
    one.backbone.network.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    embed(one, images(3, 6, 1, 20, 20))
    assert sizes == [6, 6, 6]


def test_features_that_are_not_numbers_stay_where_they_are() -> None:
    one, x = model(Conv4((1, 20, 20), width=8)), images(3, 6, 1, 20, 20)
    x[1, 2, 0, 3, 3] = torch.nan
    assert embed(one, x).isnan().flatten(1).any(1).tolist() == [False, True, False]
