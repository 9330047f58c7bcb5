"""A fully connected backbone."""

from __future__ import annotations

import math

from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Width


@BACKBONES.register("mlp")
class MLP(nn.Module):
    """Fully connected layers with ReLU between them; features are the last layer's values.

    Args:
        shape: (C, H, W) of the images, which are flattened.
        widths: units of each layer; the last is the number of features.
    """

    def __init__(self, shape: tuple[int, ...], widths: list[Width] = [256, 128, 64, 64]) -> None:  # noqa: B006
        super().__init__()
        if not widths:
            raise ValueError("mlp needs at least one layer, got widths []; write such as [128, 64]")
        layers: list[nn.Module] = []
        size = math.prod(shape)
        for width in widths:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.layers = nn.Sequential(*layers[:-1])
        self.features = size

    def forward(self, x: Tensor) -> Tensor:
        """Embed [n, *shape] as [n, D]."""
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]
