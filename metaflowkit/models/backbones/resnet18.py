"""torchvision's ResNet-18 with a stem for small images."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.models.normalisation import build_norm


@BACKBONES.register("resnet18")
class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a 3x3 stem of stride 1 and no first pooling, as is usual for small images.

    Args:
        shape: (C, H, W) of the images.
        norm: ``batch`` (statistics of the current set), ``per_step`` (stored ones for each inner step when accuracy is measured),
            ``frozen`` (those of the untrained network throughout) or ``group``.

    Reference:
        K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    reads = "images"

    def __init__(self, shape: tuple[int, int, int], norm: Literal["batch", "per_step", "frozen", "group"] = "batch") -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(weights=None, norm_layer=partial(build_norm, norm))
        self.net.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()
        self.features = self.net.fc.in_features
        self.net.fc = nn.Identity()
        for module in self.net.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # an in-place change cannot be differentiated twice under functorch

    def forward(self, x: Tensor) -> Tensor:
        """Embed images [n, C, H, W] as [n, D]."""
        return self.net(x)  # type: ignore[no-any-return]
