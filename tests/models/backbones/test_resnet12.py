"""resnet12: four residual blocks of three convolutions, with widths 1, 2, 4, 8."""

from __future__ import annotations

import torch
from torch import nn

from metaflowkit.models.backbones.resnet12 import ResNet12


def test_depth_and_widths() -> None:
    model = ResNet12((3, 32, 32), width=4)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(c.kernel_size == (3, 3) for c in convolutions) == 12
    assert sum(c.kernel_size == (1, 1) for c in convolutions) == 4
    assert model.features == convolutions[-1].out_channels
    assert model.features > convolutions[0].out_channels


def test_the_shortcut_carries_the_signal() -> None:
    model = ResNet12((1, 16, 16), width=2)
    for block in model.blocks:
        for name, parameter in block.named_parameters():
            if not name.startswith("shortcut"):
                nn.init.zeros_(parameter)
    assert model(torch.rand(3, 1, 16, 16)).abs().sum() > 0
