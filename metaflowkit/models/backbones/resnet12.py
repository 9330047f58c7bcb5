"""ResNet-12, the residual network of few-shot learning."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Width
from metaflowkit.models.normalisation import build_norm


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1, bias=False), build_norm(norm, width)]
            layers += [nn.LeakyReLU(0.1)] if i < 2 else []
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), build_norm(norm, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.leaky_relu(self.body(x) + self.shortcut(x), 0.1), 2)


@BACKBONES.register("resnet12")
class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions with widths w, 2w, 4w, 8w, then global average pooling.

    Args:
        shape: (C, H, W) of the images.
        width: channels of the first block (w).
        norm: ``batch`` (statistics of the current set), ``per_step`` (stored ones for each inner step when accuracy is measured),
            ``frozen`` (those of the untrained network throughout) or ``group``.

    Raises:
        ValueError: images smaller than 16 pixels, of which four poolings leave nothing.

    Reference:
        K. Lee et al., Meta-Learning with Differentiable Convex Optimization, CVPR 2019.
        Differs from the paper: widths double (they use 64, 160, 320, 640) and DropBlock is left out.
    """

    reads = "images"

    def __init__(self, shape: tuple[int, int, int], width: Width = 64, norm: Literal["batch", "per_step", "frozen", "group"] = "batch") -> None:
        super().__init__()
        if min(shape[1:]) < 16:
            raise ValueError(f"resnet12 needs images of at least 16x16 pixels, got {shape[1]}x{shape[2]}; raise dataset.image_size")
        widths = [width * 2**i for i in range(4)]
        self.blocks = nn.Sequential(*[_ResidualBlock(a, b, norm) for a, b in zip([shape[0], *widths], widths)])
        self.features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Embed images [n, C, H, W] as [n, D]."""
        return self.blocks(x).mean((2, 3))  # type: ignore[no-any-return]
