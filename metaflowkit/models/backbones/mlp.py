"""A fully connected backbone."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Width


@BACKBONES.register("mlp")
class MLP(nn.Module):
    """Fully connected layers with ReLU between them; features are the last layer's values, or their ReLU.

    Args:
        shape: of an example, such as (C, H, W), which is flattened.
        widths: units of each layer; the last is the number of features.
        last: what follows the last layer.
    """

    def __init__(self, shape: tuple[int, ...], widths: list[Width] = [256, 128, 64, 64], last: Literal["none", "relu"] = "none") -> None:  # noqa: B006
        super().__init__()
        if not widths:
            raise ValueError("mlp needs at least one layer, got widths []; write such as [128, 64]")
        layers: list[nn.Module] = []
        size = math.prod(shape)
        for width in widths:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.layers = nn.Sequential(*(layers if last == "relu" else layers[:-1]))
        self.features = size

    def forward(self, x: Tensor) -> Tensor:
        """Embed [n, *shape] as [n, D]."""
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]
