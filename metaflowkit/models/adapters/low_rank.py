"""Low-rank adapters of linear layers and convolutions."""

from __future__ import annotations

import fnmatch

import torch
from torch import Tensor, nn

from metaflowkit.config.registry import ADAPTERS
from metaflowkit.config.schema import Count, Positive


@ADAPTERS.register("low_rank")
class LowRank:
    """A low-rank term beside chosen layers: W x becomes W x + scale / rank * U D x, where U is zero to begin with, and only U and D are trained.

    In a convolution D has the layer's kernel, stride and padding, and U is a 1x1 convolution. The rest of the backbone is frozen.

    Args:
        rank: rows of D, columns of U.
        scale: of the term.
        layers: patterns of the layers' names; linear layers and convolutions without groups that match get a term.

    Reference:
        E. J. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1.
    """

    def __init__(self, rank: Count = 4, scale: Positive = 4.0, layers: list[str] = ["*"]) -> None:  # noqa: B006
        self.rank, self.scale, self.layers = rank, scale, layers

    def __call__(self, backbone: nn.Module) -> None:
        """Put a term beside every chosen layer of the backbone, and freeze everything else."""
        chosen = [
            (name, layer)
            for name, layer in backbone.named_modules()
            if (type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)) and any(fnmatch.fnmatchcase(name, p) for p in self.layers)
        ]
        if not chosen:
            kinds = sorted({type(layer).__name__ for name, layer in backbone.named_modules() if name and not list(layer.children())})
            raise ValueError(
                f"low_rank finds no linear layer or convolution named as {', '.join(self.layers)} in the backbone, which has {', '.join(kinds)}; "
                'write layers: ["*"], or choose another backbone'
            )
        backbone.requires_grad_(False)
        for name, layer in chosen:
            above, _, last = name.rpartition(".")
            setattr(backbone.get_submodule(above), last, _WithTerm(layer, self.rank, self.scale / self.rank))


class _WithTerm(nn.Module):
    """A layer and its low-rank term."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = layer, factor
        self.down: nn.Module
        self.up: nn.Module
        if isinstance(layer, nn.Linear):
            self.down, self.up = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)
        else:
            kernel, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
            self.down = nn.Conv2d(
                layer.in_channels, rank, kernel, stride, padding, dilation, bias=False, padding_mode=layer.padding_mode  # type: ignore[arg-type]
            )  # fmt: skip
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.layer(x), self.up(self.down(x)), alpha=self.factor)
