"""Values, gradients and second derivatives against torch's own kernels and finite differences, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metaflowkit.engines.kernels import FastKernels
from metaflowkit.models.batch_statistics import norm_then_pool
from metaflowkit.models.normalisation import StoredNorm, measured
from metaflowkit.models.precision import bfloat16


class Blocks(nn.Module):
    """Convolutions of several geometries, normalised, once with pooling."""

    def __init__(self, pool: bool, bias: bool, gamma: tuple[float, float]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6, track_running_stats=False)
        self.strided, self.last = nn.Conv2d(6, 4, 3, stride=2, dilation=(1, 2), groups=2, bias=bias), nn.BatchNorm2d(4, track_running_stats=False, eps=0.1)
        self.pool = pool
        nn.init.uniform_(self.norm.weight, *gamma)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        x = self.conv(x)
        x = norm_then_pool(x, self.norm) if self.pool else self.norm(x)
        return self.last(self.strided(x.relu()))


def derivatives(net: nn.Module, x: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """A scalar of the output, its gradients, and those of a scalar of the gradients."""
    value = (net(x) ** 3).sum()
    first = torch.autograd.grad(value, inputs, create_graph=True)
    weights = [torch.linspace(-1, 1, g.numel(), dtype=g.dtype).view_as(g) for g in first]
    return [value, *first, *torch.autograd.grad(sum((w * g**2).sum() for w, g in zip(weights, first)), inputs)]


@pytest.mark.parametrize(
    ("pool", "bias", "gamma", "layout", "size"),
    list(itertools.product([False, True], [False, True], [(0.2, 1.0), (-1.0, 1.0)], [torch.contiguous_format, torch.channels_last], [12, 13])),
)
@pytest.mark.parametrize("wanted", ["all", "parameters", "images"])
def test_the_same_derivatives_as_torch(pool, bias, gamma, layout, size, wanted) -> None:
    torch.manual_seed(0)
    net = Blocks(pool, bias, gamma).double()
    x = torch.randn(5, 3, size, size, dtype=torch.float64).to(memory_format=layout).requires_grad_(wanted != "parameters")
    for p in net.parameters():
        p.requires_grad_(wanted != "images")
    inputs = [v for v in (x, *net.parameters()) if v.requires_grad]
    expected = derivatives(net, x, inputs)
    with FastKernels():
        results = derivatives(net, x, inputs)
    size_of = max(e.norm() for e in expected[1 + len(inputs) :])
    for a, b in zip(results, expected, strict=True):
        assert (a - b).norm() < 1e-11 * (b.norm() + size_of)


@pytest.mark.parametrize("pool", [False, True])
def test_second_derivatives_match_finite_differences(pool) -> None:
    torch.manual_seed(1)
    conv, norm = nn.Conv2d(2, 3, 3, padding=1).double(), nn.BatchNorm2d(3, track_running_stats=False).double()

    def function(x, weight, bias, gamma, beta):
        x = F.conv2d(x, weight, bias, padding=1)
        own = nn.BatchNorm2d(3, track_running_stats=False)
        own.weight, own.bias = nn.Parameter(gamma), nn.Parameter(beta)
        own._parameters.update(weight=gamma, bias=beta)
        return norm_then_pool(x, own) if pool else own(x)

    inputs = [torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True), conv.weight, conv.bias, norm.weight, norm.bias]
    with FastKernels():
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_convolutions_go_on_to_any_order_and_normalisation_says_where_it_ends() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def third(function):
        value = (function() ** 4).sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(value, weight, create_graph=True)
            value = (g**2).sum()
        return g

    expected = third(lambda: F.conv2d(x, weight, padding=1))
    norm = nn.BatchNorm2d(3, track_running_stats=False).double()
    with FastKernels():
        torch.testing.assert_close(third(lambda: F.conv2d(x, weight, padding=1)), expected)
        with pytest.raises(RuntimeError, match="batch normalisation has no third derivative"):
            third(lambda: norm(F.conv2d(x, weight, padding=1)))


@pytest.mark.parametrize(
    "net",
    [
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, track_running_stats=False, affine=False),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(32, track_running_stats=False)),
        nn.GroupNorm(1, 2),
        nn.ConvTranspose2d(2, 2, 3),
    ],
    ids=str,
)
def test_what_is_not_replaced_is_torchs_own_to_the_bit(net) -> None:
    x = torch.randn(3, 2, 4, 4)
    own = net(x)
    with FastKernels():
        assert torch.equal(net(x), own)
    if isinstance(net, nn.BatchNorm2d) and net.running_mean is not None:
        assert net.num_batches_tracked == 2
        net.eval()
        expected = norm_then_pool(x, net)
        with FastKernels():
            assert torch.equal(norm_then_pool(x, net), expected)


def test_no_graph_where_none_is_asked_for() -> None:
    net = Blocks(True, True, (0.2, 1.0))
    with FastKernels(), torch.no_grad():
        assert not net(torch.randn(2, 3, 12, 12)).requires_grad
    with FastKernels():
        (g,) = torch.autograd.grad(net(torch.randn(2, 3, 12, 12)).pow(2).sum(), net.conv.weight)
    assert not g.requires_grad


def functions(tensor: torch.Tensor) -> set[str]:
    """Names of what made a tensor."""
    results, left = set(), [tensor.grad_fn]
    while left:
        node = left.pop()
        results.add(type(node).__name__)
        left += [parent for parent, _ in node.next_functions if parent is not None]
    return results


@pytest.mark.parametrize("second", [True, False])
def test_what_is_replaced(second) -> None:
    torch.manual_seed(0)
    x, plain = torch.randn(2, 3, 12, 12), Blocks(True, True, (0.2, 1.0))
    with FastKernels(second):
        result = plain(x)
    results = functions(result)
    assert "_NormaliseBackward" in results
    assert not results & {"NativeBatchNormBackward0", "MaxPool2DWithIndicesBackward0"}
    assert ("_ConvolveBackward" in results, "ConvolutionBackward0" in results) == (second, not second)


def test_convolutions_have_the_same_bits_with_and_without_second_derivatives() -> None:
    torch.manual_seed(0)
    net, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(5, 3, 12, 12)
    results = []
    for second in (True, False):
        with FastKernels(second):
            value = net(x)
        results.append([value, *torch.autograd.grad(value.sin().sum(), list(net.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_places_of_a_large_image_are_kept_whole() -> None:
    norm = nn.BatchNorm2d(1, track_running_stats=False).double()
    x = torch.randn(2, 1, 184, 184, dtype=torch.float64, requires_grad=True)  # more places than 16 bits can count

    def derivatives() -> list[torch.Tensor]:
        (first,) = torch.autograd.grad((norm_then_pool(x, norm) ** 3).sum(), x, create_graph=True)
        return [first, *torch.autograd.grad((first**2).sum(), x)]

    expected = derivatives()
    with FastKernels():
        results = derivatives()
    for a, b in zip(results, expected, strict=True):
        assert (a - b).norm() < 1e-11 * b.norm()


def outcome(function) -> tuple:
    """Type and text of what a function raises, or data type and values of what it returns."""
    try:
        result = function()
    except Exception as error:
        return type(error), str(error)
    return result.dtype, result.detach()


def image(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_(dtype.is_floating_point or dtype.is_complex)


def batch_norm(x, channels: int = 3, eps: float = 1e-5):
    return F.batch_norm(x, None, None, torch.full((channels,), 0.5), torch.ones(channels), True, 0.1, eps)


def pooled(x, channels: int = 3, eps: float = 1e-5):
    return norm_then_pool(x, nn.BatchNorm2d(channels, track_running_stats=False, eps=eps))


def cast(function):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return function()


def second_derivative(dtype: torch.dtype) -> torch.Tensor:
    x, weight = image(2, 3, 6, 6, dtype=dtype), image(4, 3, 3, 3, dtype=dtype)
    (g,) = torch.autograd.grad(F.conv2d(x, weight).abs().square().sum(), weight, create_graph=True)
    return torch.autograd.grad(g.abs().square().sum(), weight)[0]


UNUSUAL = {
    "eps of 0": lambda: batch_norm(image(4, 3, 8, 8), eps=0.0),
    "eps of 0, pooled": lambda: pooled(image(4, 3, 8, 8), eps=0.0),
    "eps below 0": lambda: batch_norm(image(4, 3, 8, 8), eps=-1.0),
    "one value per channel": lambda: batch_norm(image(1, 3, 1, 1)),
    "one value per channel, pooled": lambda: pooled(image(1, 3, 1, 1)),
    "nothing left by pooling": lambda: pooled(image(4, 3, 1, 2)),
    "no images": lambda: batch_norm(image(0, 3, 8, 8)),
    "no images, pooled": lambda: pooled(image(0, 3, 8, 8)),
    "no images, convolved": lambda: F.conv2d(image(0, 3, 8, 8), image(4, 3, 3, 3)),
    "too few weights": lambda: batch_norm(image(4, 3, 8, 8), channels=2),
    "too few weights, pooled": lambda: pooled(image(4, 3, 8, 8), channels=2),
    "complex": lambda: F.conv2d(image(2, 3, 6, 6, dtype=torch.complex64), image(4, 3, 3, 3, dtype=torch.complex64)),
    "complex, differentiated twice": lambda: second_derivative(torch.complex128),
    "complex, normalised": lambda: batch_norm(image(2, 3, 6, 6, dtype=torch.complex64)),
    "bfloat16 by float32": lambda: batch_norm(image(4, 3, 8, 8, dtype=torch.bfloat16)),
    "float64 by float32": lambda: batch_norm(image(4, 3, 8, 8, dtype=torch.float64)),
    "whole numbers": lambda: F.conv2d(image(1, 3, 5, 5).long(), image(4, 3, 3, 3).long()),
    "autocast, convolved": lambda: cast(lambda: F.conv2d(image(2, 3, 8, 8), image(4, 3, 3, 3))),
    "autocast, normalised": lambda: cast(lambda: batch_norm(F.conv2d(image(2, 3, 8, 8), image(3, 3, 3, 3)))),
    "autocast, pooled": lambda: cast(lambda: pooled(F.conv2d(image(2, 3, 8, 8), image(3, 3, 3, 3)))),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_input_is_answered_as_by_torch(name) -> None:
    expected = outcome(UNUSUAL[name])
    with FastKernels():
        result = outcome(UNUSUAL[name])
    assert result[0] == expected[0]
    if isinstance(expected[1], str):
        assert result[1] == expected[1]
    else:
        torch.testing.assert_close(result[1], expected[1])


def test_a_layer_that_stores_statistics_is_replaced_only_where_it_takes_those_of_the_current_set() -> None:
    torch.manual_seed(0)
    x, plain = torch.randn(5, 3, 12, 12), nn.BatchNorm2d(3, track_running_stats=False)
    stored, frozen = StoredNorm(3, frozen=False), StoredNorm(3, frozen=True)
    for norm in (stored, frozen):
        norm.means, norm.variances = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[2.0, 0.5, 1.0]])
    with FastKernels():
        assert torch.equal(norm_then_pool(x, stored), norm_then_pool(x, plain))
        assert "_NormaliseBackward" in functions(norm_then_pool(x, stored))
        by_stored = F.max_pool2d(F.batch_norm(x, stored.means[0], stored.variances[0]), 2)
        torch.testing.assert_close(norm_then_pool(x, frozen), by_stored)
        with measured():
            torch.testing.assert_close(norm_then_pool(x, stored), by_stored)
        stored.records = []
        norm_then_pool(x, stored)
        assert len(stored.records) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16_derivatives_are_those_of_autocast(layout) -> None:
    torch.manual_seed(0)
    net = Blocks(True, True, (0.2, 1.0))
    x = torch.randn(5, 3, 12, 12).to(memory_format=layout)
    inputs = list(net.parameters())

    def first(net):
        with bfloat16(x.device):
            hidden = net.conv(x)
            y = norm_then_pool(hidden, net.norm)
        assert (hidden.dtype, y.dtype) == (torch.bfloat16, torch.float32)
        return y, torch.autograd.grad((y**3).sum(), [net.conv.weight, net.conv.bias, net.norm.weight, net.norm.bias])

    expected_y, expected = first(net)
    with FastKernels():
        y, gradients = first(net)
    assert "_Normalise" in str(y.grad_fn)  # not torch's own, which takes several times as long in channels-last images
    for a, b in zip((y, *gradients), (expected_y, *expected), strict=True):
        assert (a - b).norm() <= 1e-2 * b.norm() + 1e-4
    with bfloat16(x.device):
        reference = derivatives(net, x, inputs)
        with FastKernels():
            second = derivatives(net, x, inputs)
    size_of = max(e.norm() for e in reference[1 + len(inputs) :])
    for a, b in zip(second, reference, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.05 * (b.norm() + size_of)
