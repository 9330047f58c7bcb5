"""The four-block convolutional network of few-shot learning."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Width
from metaflowkit.models.batch_statistics import FirstBlock, norm_then_pool
from metaflowkit.models.normalisation import build_norm


class _ConvBlock(nn.Module):
    def __init__(self, channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=norm == "group")  # the other norms add a shift themselves
        self.norm = build_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(norm_then_pool(self.conv(x), self.norm))  # ReLU and pooling commute, and so ReLU reads a quarter of the values


@BACKBONES.register("conv4")
class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, normalisation, ReLU and 2x2 max-pooling; features are flattened.

    Args:
        shape: (C, H, W) of the images.
        width: channels of every block.
        norm: ``batch`` (statistics of the current set), ``per_step`` (stored ones for each inner step when accuracy is measured),
            ``frozen`` (those of the untrained network throughout) or ``group``.

    Raises:
        ValueError: images smaller than 16 pixels, of which four poolings leave nothing.

    Reference:
        O. Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016.
    """

    reads = "images"

    def __init__(self, shape: tuple[int, int, int], width: Width = 64, norm: Literal["batch", "per_step", "frozen", "group"] = "batch") -> None:
        super().__init__()
        channels, height, side = shape
        if min(height, side) < 16:
            raise ValueError(f"conv4 needs images of at least 16x16 pixels, got {height}x{side}; raise dataset.image_size")
        self.blocks = nn.Sequential(*[_ConvBlock(channels if i == 0 else width, width, norm) for i in range(4)])
        self.features = width * (height // 16) * (side // 16)

    def forward(self, x: Tensor) -> Tensor:
        """Embed images [n, C, H, W] as [n, D]."""
        return self.blocks(x).flatten(1)  # type: ignore[no-any-return]

    def first_block(self) -> FirstBlock:
        """The first convolution and normalisation, and what follows their pooling."""
        first, *others = self.blocks
        assert isinstance(first, _ConvBlock)
        rest = nn.Sequential(nn.ReLU(), *others, nn.Flatten())
        return FirstBlock(first.conv, first.norm, rest)
