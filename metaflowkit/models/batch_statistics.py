"""Normalisation whose sums per channel are accurate in float32, whatever the memory layout of the images.

On a CPU, torch sums channels-last images pixel after pixel into one float32 number per channel. The variance of real images is then
off by 1e-4 and more (``python benchmarks/channels_last_statistics.py`` measures it), and an inner loop amplifies that until the
meta-gradient has another direction. There are two remedies here:

* :func:`moments` and :func:`gradient_sums` run the same kernels on another view of the same memory, in which a channel is split into
  many, each with an equal share of its pixels: no number then sums more than a few dozen values, and accurate sums over the shares
  follow. They carry no graph and cost little more than torch's own.
* :class:`AccurateNorms` gives torch's own layers a contiguous copy of their input, for which torch's kernels are accurate in
  every derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

_SUMS = (False, True, True)
ROWS = 256  # values up to which torch's sums are left as they are
SHARE = 64  # beyond that, values that one float32 number sums


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel.

    Args:
        x: [n, C, ...], at least one value per channel.

    Returns:
        Mean and variance, [C] each, without graph.
    """
    pixels = _pixels(x)
    if pixels is None:
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    means, variances = torch.batch_norm_update_stats(pixels, None, None, 0.0)
    return joint_moments(means.view(-1, x.shape[1]), variances.view(-1, x.shape[1]))


def moments_of_sets(x: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """:func:`moments` of each of some sets of equal size.

    Args:
        x: the sets, one after the other, [sets * n, C, ...].
        sets: their number.

    Returns:
        Mean and variance, [sets, C] each, without graph.
    """
    values = [pixels if (pixels := _pixels(each)) is not None else each for each in x.view(sets, -1, *x.shape[1:])]
    of_shares: Any = zip(*(torch.batch_norm_update_stats(v, None, None, 0.0) for v in values))
    means, variances = (torch.stack(each).view(sets, -1, x.shape[1]) for each in of_shares)
    return joint_moments(means, variances)


def joint_moments(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of k shares of equal size together, computed in float64.

    Args:
        means: of each share, [..., k, C].
        variances: of each share, biased, [..., k, C].

    Returns:
        mean_i m_i and mean_i (v_i + (m_i - mean)^2), [..., C] each.
    """
    shares = means.double()
    mean = shares.mean(-2)
    variance = (shares - mean.unsqueeze(-2)).square_().add_(variances).mean(-2)
    return mean.to(means.dtype), variance.to(means.dtype)


def gradient_sums(g: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The sums per channel in batch normalisation's derivative.

    Args:
        g: [n, C, ...].
        x: of the same shape.
        mean: m, [C].
        r: one over the deviation, [C].

    Returns:
        sum of g (x - m) r, and sum of g, [C] each, without graph.
    """
    pixels = _pixels(x)
    if pixels is None:
        _, slope, total = _batch_norm_backward(g, x, r, None, None, mean, r, True, 0.0, _SUMS)
        return slope, total
    shares = pixels.shape[1] // x.shape[1]
    mean, r = (v.expand(shares, -1).reshape(-1) for v in (mean, r))
    g = g.contiguous(memory_format=_layout(x)).as_strided(pixels.shape, pixels.stride())
    _, slope, total = _batch_norm_backward(g, pixels, r, None, None, mean, r, True, 0.0, _SUMS)
    return slope.view(shares, -1).sum(0), total.view(shares, -1).sum(0)


class AccurateNorms(TorchFunctionMode):
    """Within this context torch's batch and group normalisation are accurate for every memory layout.

    Values and derivatives of every order are torch's own, of a contiguous copy of the input where the layout requires one.
    Not for use inside torch.func's transforms, which have accurate kernels of their own.
    """

    replaced: dict[Any, Callable[..., Any]] = {}  # noqa: RUF012, filled below

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Calls ``func`` or what replaces it."""
        return self.replaced.get(func, func)(*args, **(kwargs or {}))


def _on_a_copy(function: Callable[..., Tensor], rows: bool = True) -> Callable[..., Tensor]:
    """The function, whose input is copied where torch's sums would be inaccurate; ``rows``: also that of [n, C], which is summed like pixels."""

    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if is_channels_last(input):
            return function(input.contiguous(), *args, **kwargs).contiguous(memory_format=_layout(input))
        if rows and input.dim() == 2 and len(input) > ROWS and input.device.type == "cpu":
            return function(input.mT.contiguous()[None], *args, **kwargs)[0].mT
        return function(input, *args, **kwargs)

    return call


def norm_then_pool(x: Tensor, norm: nn.Module) -> Tensor:
    """2x2 max-pooling of normalised images; one function, so that an engine can compute both together.

    Args:
        x: [n, C, H, W].
        norm: a normalisation layer.

    Returns:
        [n, C, H // 2, W // 2].
    """
    if has_torch_function((x,)):
        return handle_torch_function(norm_then_pool, (x,), x, norm)
    return F.max_pool2d(norm(x), 2)


class FirstBlock(NamedTuple):
    """How a network of images begins: its features are ``rest(norm_then_pool(convolution(x), norm))``.

    Attributes:
        convolution: images [n, C, H, W] -> [n, C', H', W'], each by itself.
        norm: a normalisation layer.
        rest: what follows the pooling -> features [n, D].
    """

    convolution: Callable[[Tensor], Tensor]
    norm: nn.Module
    rest: Callable[[Tensor], Tensor]


def _norm_then_pool(x: Tensor, norm: nn.Module) -> Tensor:
    with AccurateNorms():
        return F.max_pool2d(norm(x), 2)


batch_norm, group_norm = _on_a_copy(F.batch_norm), _on_a_copy(F.group_norm, rows=False)
AccurateNorms.replaced = {
    F.batch_norm: batch_norm,
    F.group_norm: group_norm,
    torch.batch_norm: _on_a_copy(torch.batch_norm),
    norm_then_pool: _norm_then_pool,
}


def batch_norm_by(function: Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor | None], tracked: bool) -> Callable[..., Tensor]:
    """A replacement of ``F.batch_norm`` that normalises by the statistics of the current set with a given function.

    Args:
        function: (input, weight, bias, eps) -> the result, or None to leave it to :data:`batch_norm`.
        tracked: whether also a layer that tracks running statistics goes to it, which are then not updated.
    """

    def call(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        result = function(input, weight, bias, eps) if training and (tracked or running_mean is None) else None
        return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps) if result is None else result

    return call


def is_channels_last(x: Tensor) -> bool:
    """Whether torch takes its channels-last kernels for images or volumes on a CPU."""
    return x.dim() in (4, 5) and x.device.type == "cpu" and x.is_contiguous(memory_format=_layout(x)) and not x.is_contiguous()


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _pixels(x: Tensor) -> Tensor | None:
    """Channels-last images [n, C, H, W] as [1, k C, n H W / k, 1] of the same memory, channels last again; None where rows are few.

    Pixel i of the whole set belongs to share i mod k.
    """
    if not is_channels_last(x):
        return None
    channels = x.shape[1]
    count = x.numel() // channels
    if count <= ROWS:
        return None
    size = _shares(count) * channels
    return x.as_strided((1, size, x.numel() // size, 1), (x.numel(), 1, size, size))


@lru_cache(1024)
def _shares(count: int) -> int:
    """The least number of equal shares of at most SHARE values."""
    return next(shares for shares in range(-(-count // SHARE), count + 1) if count % shares == 0)


_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
