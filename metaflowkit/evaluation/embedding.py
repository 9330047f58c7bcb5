"""Features of many sets of examples, in few passes through the network.

A small set costs more in calls than in arithmetic. Sets therefore go through the network together, as one batch in which batch
normalisation still takes the statistics of each set alone. Whether a network treats examples alike in both ways cannot be read
from its modules, so the first and the last set of the first pass also go alone, and where their features differ, every set does.
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
            together = _together(model, x, sets)
            if together is not None:
                return together
        return torch.cat([_features(model, one) for one in torch.split(x, 1)])


def _together(model: Model, x: Tensor, sets: int) -> Tensor | None:
    """The features by passes of so many sets; None where the network cannot take several, or mixes them."""
    groups = torch.split(x, sets)
    alone = torch.cat([_features(model, groups[0][i : i + 1]) for i in (0, sets - 1)])
    try:
        features = _features(model, groups[0])
    except Exception:  # what is wrong with the network itself has shown with one set
        return None
    beside = features[[0, -1]]
    if beside.shape != alone.shape or not (beside - alone).abs().max() <= CLOSE * alone.abs().max():
        return None
    return torch.cat([features, *(_features(model, group) for group in groups[1:])])


def _features(model: Model, x: Tensor) -> Tensor:
    with TaskBuffers(model).within(model), _SetsApart(len(x)):
        features: Tensor = model.backbone(_as_one(x))
        return features.reshape(*x.shape[:2], *features.shape[1:])


def _as_one(x: Tensor) -> Tensor:
    """[T, n, ...] as [T * n, ...], in the same layout also where images have one channel, of which ``flatten`` forgets it."""
    if x.stride(0) != x.shape[1] * x.stride(1):
        return x.flatten(0, 1)
    return x.as_strided((x.shape[0] * x.shape[1], *x.shape[2:]), x.stride()[1:])


class _SetsApart(FastKernels):
    """Within this context a batch is so many sets of equal size, one after the other, and batch normalisation normalises each by itself.

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
    with _SetsApart(sets):
        return F.max_pool2d(norm(x), 2)


def _scale_and_shift(sets: int, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """[sets, C] each, with which a set x is normalised as scale * x + shift."""
    statistics: Any = zip(*(moments(one) for one in x.view(sets, -1, *x.shape[1:])))
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
    """2x2 max-pooling; quicker than torch's, which also notes the places."""
    height, width = (size // 2 * 2 for size in x.shape[2:])
    rows = torch.maximum(x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
