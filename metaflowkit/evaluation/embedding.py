"""Features of many sets of examples, in few passes through the network.

A small set costs more in calls than in arithmetic. Several sets therefore go through the network as one batch, in which batch
normalisation still takes the statistics of each set alone. Whether a network gives the same features in both ways cannot be read
from its modules, so the first and the last set of the first pass are also embedded alone, and where the features differ, every set is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.kernels import FastKernels
from metaflowkit.engines.safety import exact_convolutions, hooked, without_dropout
from metaflowkit.models.batch_statistics import batch_norm_by, is_channels_last, moments, norm_then_pool
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import measured

VALUES = 2**17  # of input in one pass, which bounds its memory
CLOSE = 1e-4  # relative; far above rounding in float32, far below what another set's statistics do


@torch.no_grad()
def embed(model: Model, x: Tensor) -> Tensor:
    """Features [T, n, D] of T sets of examples [T, n, ...], each by itself; what the model writes to its buffers is dropped.

    Values do not depend on which sets share a pass, except for rounding.
    """
    sets = min(len(x), max(1, VALUES // max(1, x[0].numel())))
    with exact_convolutions(), measured(), without_dropout(model):
        if sets > 1 and not hooked(model):
            features = _batched_features(model, x, sets)
            if features is not None:
                return features
        return torch.cat([_features(model, single) for single in torch.split(x, 1)])


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
    with TaskBuffers(model).within(model), _PerSetStatistics(len(x)):
        features: Tensor = model.embed(_as_one(x))
        return features.reshape(*x.shape[:2], *features.shape[1:])


def _as_one(x: Tensor) -> Tensor:
    """[T, n, ...] as [T * n, ...], in the same memory layout, which ``flatten`` loses for images of one channel."""
    if x.stride(0) != x.shape[1] * x.stride(1):
        return x.flatten(0, 1)
    return x.as_strided((x.shape[0] * x.shape[1], *x.shape[2:]), x.stride()[1:])


class _PerSetStatistics(FastKernels):
    """Within this context a batch is this many sets of equal size, one after the other, and batch normalisation normalises each by itself.

    Without graph; running statistics are not updated.
    """

    def __init__(self, sets: int) -> None:
        super().__init__(second=False)
        self.replaced = {**self.replaced, norm_then_pool: partial(_norm_then_pool, sets)}
        if sets > 1:
            self.replaced[F.batch_norm] = batch_norm_by(partial(_batch_norm, sets), tracked=True)


def _batch_norm(sets: int, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled(input, *_scale_and_shift(sets, input, weight, bias, eps))


def _norm_then_pool(sets: int, x: Tensor, norm: Any) -> Tensor:
    plain = type(norm) is nn.BatchNorm2d and norm.running_mean is None and norm.affine and not hooked(norm)
    if plain and is_channels_last(x) and min(x.shape[2:]) > 1 and norm.weight.min().item() >= 0:  # then pooling and normalising commute
        return _scaled(_largest(x), *_scale_and_shift(sets, x, norm.weight, norm.bias, norm.eps))
    with _PerSetStatistics(sets):
        return F.max_pool2d(norm(x), 2)


def _scale_and_shift(sets: int, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """[sets, C] each, with which a set x is normalised as scale * x + shift."""
    statistics: Any = zip(*(moments(group) for group in x.view(sets, -1, *x.shape[1:])))
    mean, variance = map(torch.stack, statistics)
    scale = (variance + eps).rsqrt_()
    if weight is not None:
        scale *= weight
    shift = -mean * scale
    if bias is not None:
        shift += bias
    return scale.to(x.dtype), shift.to(x.dtype)


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift, set by set."""
    per_set = x.view(len(scale), -1, *x.shape[1:])
    scale, shift = (v.view(len(v), 1, -1, *[1] * (x.dim() - 2)) for v in (scale, shift))
    return torch.addcmul(shift, per_set, scale).flatten(0, 1)


def _largest(x: Tensor) -> Tensor:
    """2x2 max-pooling; faster than torch's, which also computes indices."""
    height, width = (size // 2 * 2 for size in x.shape[2:])
    rows = torch.maximum(x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
