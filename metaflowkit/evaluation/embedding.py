"""Features of many sets of examples, in few passes through the network.

A small set costs more in calls than in arithmetic. Several sets therefore go through the network as one batch, in which batch
normalisation still takes the statistics of each set alone. Whether a network gives the same features in both ways cannot be read
from its modules, so the first and the last set of the first pass are also embedded alone, and where the features differ, every set is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.kernels import FastKernels
from metaflowkit.engines.safety import exact_convolutions, hooked, without_dropout
from metaflowkit.models.batch_statistics import batch_norm_by, is_channels_last, moments_of_sets, norm_then_pool
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import measured

VALUES = 2**17  # of input in one pass, which bounds its memory
CLOSE = 1e-4  # relative; far above rounding in float32, far below what another set's statistics do


@torch.no_grad()
def embed(model: Model, x: Tensor) -> Tensor:
    """Features [T, n, D] of T sets of examples [T, n, ...], each by itself; what the model writes to its buffers is dropped.

    Values do not depend on which sets share a pass, except for rounding.
    """
    sets = sets_of_a_pass(len(x), x[0].numel())
    with as_measured(model):
        if sets > 1 and not hooked(model):
            features = _batched_features(model, x, sets)
            if features is not None:
                return features
        return torch.cat([_features(model, single) for single in torch.split(x, 1)])


def sets_of_a_pass(sets: int, values: int) -> int:
    """How many of some sets, of so many values of input each, go through a network together."""
    return min(sets, max(1, VALUES // max(1, values)))


@contextmanager
def as_measured(model: nn.Module) -> Iterator[None]:
    """Within this context a model computes as its accuracy is measured."""
    with exact_convolutions(), measured(), without_dropout(model):
        yield


@contextmanager
def as_sets(model: nn.Module, sets: int) -> Iterator[None]:
    """Within this context a batch is this many sets of equal size, of which batch normalisation takes each by itself; what the model writes to its buffers is dropped."""
    with TaskBuffers(model).within(model), _PerSetStatistics(sets):
        yield


def depend_on_their_set(model: Model, x: Tensor) -> bool:
    """Whether features of examples [n, ...] are others in a set with the rest of them than alone; this is tried, since it cannot be read from the modules."""
    try:
        together, alone = embed(model, x[None])[0], embed(model, x[:, None])[:, 0]
    except (RuntimeError, ValueError):  # batch normalisation of a single value
        return True
    return not bool((together - alone).abs().max() <= CLOSE * together.abs().max())


def _batched_features(model: Model, x: Tensor, sets: int) -> Tensor | None:
    """The features by passes of this many sets; None where the network cannot process several, or mixes them."""
    groups = torch.split(x, sets)
    single = torch.cat([_features(model, groups[0][i : i + 1]) for i in (0, sets - 1)])
    try:
        features = _features(model, groups[0])
    except Exception:  # an error of the network itself was raised with one set already
        return None
    batched = features[[0, -1]]
    if batched.shape != single.shape or not (batched - single).abs().max() <= CLOSE * single.abs().max():
        return None
    return torch.cat([features, *(_features(model, group) for group in groups[1:])])


def _features(model: Model, x: Tensor) -> Tensor:
    with as_sets(model, len(x)):
        features: Tensor = model.embed(_as_one(x))
        return features.reshape(*x.shape[:2], *features.shape[1:])


def _as_one(x: Tensor) -> Tensor:
    """[T, n, ...] as [T * n, ...], in the same memory layout, which ``flatten`` loses for images of one channel."""
    if x.stride(0) != x.shape[1] * x.stride(1):
        return x.flatten(0, 1)
    return x.as_strided((x.shape[0] * x.shape[1], *x.shape[2:]), x.stride()[1:])


class _PerSetStatistics(FastKernels):
    """Within this context batch normalisation takes each set of a batch by itself (:func:`as_sets`); without graph, and running statistics are not updated."""

    def __init__(self, sets: int) -> None:
        super().__init__(second=False)
        self.replaced = {**self.replaced, norm_then_pool: partial(_norm_then_pool, sets)}
        if sets > 1:
            self.replaced[F.batch_norm] = batch_norm_by(partial(_batch_norm, sets), tracked=True)


def _batch_norm(sets: int, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return scaled(input, *scale_and_shift(*moments_of_sets(input, sets), weight, bias, eps))


def _norm_then_pool(sets: int, x: Tensor, norm: Any) -> Tensor:
    if commutes_with_pooling(norm) and is_channels_last(x) and min(x.shape[2:]) > 1:
        return scaled(largest_of_four(x), *scale_and_shift(*moments_of_sets(x, sets), norm.weight, norm.bias, norm.eps))
    with _PerSetStatistics(sets):
        return F.max_pool2d(norm(x), 2)


def commutes_with_pooling(norm: Any) -> bool:
    """Whether this layer normalises by the statistics of the current set alone, and by no negative scale."""
    plain = type(norm) is nn.BatchNorm2d and norm.running_mean is None and norm.affine and not hooked(norm)
    return plain and norm.weight.min().item() >= 0


def scale_and_shift(mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """[sets, C] each, with which a set x of this mean and variance, [sets, C], is normalised as scale * x + shift."""
    scale = (variance + eps).rsqrt_()
    if weight is not None:
        scale *= weight
    shift = -mean * scale
    if bias is not None:
        shift += bias
    return scale, shift


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift, set by set."""
    per_set = x.view(len(scale), -1, *x.shape[1:])
    scale, shift = (v.to(x.dtype).view(len(v), 1, -1, *[1] * (x.dim() - 2)) for v in (scale, shift))
    return torch.addcmul(shift, per_set, scale).flatten(0, 1)


def largest_of_four(x: Tensor) -> Tensor:
    """2x2 max-pooling; faster than torch's, which also computes indices."""
    height, width = (size // 2 * 2 for size in x.shape[2:])
    rows = torch.maximum(x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
