"""The first block of a network, computed once for each image where many sets show the images again and again.

A convolution and a 2x2 max-pooling treat each image alone; batch normalisation between them takes its statistics of the whole set. Where no scale is negative, normalising
commutes with pooling (:mod:`metaflowkit.engines.kernels`), so that a set needs of each image the largest of four values and, for every channel, the mean m_i and the
variance v_i of all values, which give those of the set (:func:`metaflowkit.models.batch_statistics.joint_moments`). These are kept in a table. On small images the first block reads and writes more memory than all the others together.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.engines.contract import kind_of
from metaflowkit.errors import BrokenContract
from metaflowkit.evaluation.embedding import CLOSE, as_measured, as_sets, commutes_with_pooling, embed, largest_of_four, scale_and_shift, scaled, sets_of_a_pass
from metaflowkit.evaluation.parallel import in_parallel
from metaflowkit.models.batch_statistics import FirstBlock, is_channels_last, joint_moments, moments_of_sets
from metaflowkit.models.model import Model

MEMORY = 2**30  # bytes that a table may take
CHUNK = 50  # images in a pass
TRIED = 8  # images of each set on which the features are compared with those of the whole network


@dataclass(frozen=True)
class FirstBlockTable:
    """What is known of each of n images, and the network that it is known of.

    Attributes:
        model: the network.
        block: how its backbone begins.
        values: number of values of an image as the network reads it.
        largest: of every four values of the convolution, [n, H' // 2, W' // 2, C'].
        mean: over the values of the convolution, [n, C'].
        variance: of these, biased, [n, C'].
    """

    model: Model
    block: FirstBlock
    values: int
    largest: Tensor
    mean: Tensor
    variance: Tensor

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Features [T, n, D] of the sets of the images of these rows [T, n], each by itself."""
        sets = sets_of_a_pass(len(rows), rows.shape[1] * self.values)
        with as_measured(self.model):
            return torch.cat([self._features(part) for part in torch.split(rows, sets)])

    def fill(self, start: int, x: Tensor) -> None:
        """Compute the rows from ``start`` on, of images as the network reads them."""
        convolved = self.block.convolution(x)
        rows = slice(start, start + len(x))
        self.largest[rows] = largest_of_four(convolved).permute(0, 2, 3, 1)
        self.mean[rows], self.variance[rows] = moments_of_sets(convolved, len(x))

    def _features(self, rows: Tensor) -> Tensor:
        norm: Any = self.block.norm
        mean, variance = joint_moments(self.mean[rows], self.variance[rows])
        pooled = self.largest[rows.flatten()].permute(0, 3, 1, 2)
        with as_sets(self.model, len(rows)):
            features = self.block.rest(scaled(pooled, *scale_and_shift(mean, variance, norm.weight, norm.bias, norm.eps)))
            return features.reshape(*rows.shape, *features.shape[1:])


@torch.no_grad()
def first_block_table(flow: FewShotFlow, x: Tensor) -> FirstBlockTable | None:
    """The table of a split's images by the current weights.

    Args:
        flow: with the weights.
        x: images [n, *shape] of a split.

    Returns:
        None where the backbone does not say how it begins, begins with another normalisation, computes in bfloat16 or on a GPU, or where the features would be others, or the
        table too large.

    Raises:
        BrokenContract: the backbone's ``first_block`` returns something else.
    """
    model, begins = flow.model, getattr(flow.model.backbone, "first_block", None)
    if begins is None or model.precision == "bf16" or flow.device.type != "cpu":
        return None
    block = begins()
    if not isinstance(block, FirstBlock):
        text = f"must return FirstBlock(convolution, norm, rest) from first_block, got {kind_of(block)}; return one, or leave the method out"
        raise BrokenContract("model.backbone", type(model.backbone).__name__, text)
    with as_measured(model):
        convolved = block.convolution(flow.inputs(x[:1]))
        if not (commutes_with_pooling(block.norm) and is_channels_last(convolved) and min(convolved.shape[2:]) > 1):
            return None
        _, channels, height, width = convolved.shape
        shape = (len(x), height // 2, width // 2, channels)
        if math.prod(shape) * convolved.element_size() > MEMORY:
            return None
        table = FirstBlockTable(model, block, x[0].numel(), *(_shared(size, convolved.dtype) for size in (shape, (len(x), channels), (len(x), channels))))
        chunks = torch.split(x, CHUNK)

        def fill(i: int) -> dict[str, Tensor]:
            table.fill(i * CHUNK, flow.inputs(chunks[i]))
            return {}

        in_parallel(fill, model, len(chunks))
    return table if _agrees(table, flow, x) else None


def _agrees(table: FirstBlockTable, flow: FewShotFlow, x: Tensor) -> bool:
    """Whether the features of two sets are those of the whole network."""
    first = torch.arange(TRIED) % len(x)
    sets = torch.stack([first, len(x) - 1 - first])
    features, expected = table(sets), embed(flow.model, flow.inputs(x[sets]))
    return features.shape == expected.shape and bool((features - expected).abs().max() <= CLOSE * expected.abs().max())


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in memory that forked processes share."""
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)
