"""Augmentation inside the graph, whose strengths the outer loop learns."""

from __future__ import annotations

import math

import torch
from kornia.geometry.transform import warp_affine
from torch import Tensor, nn

from metaflowkit.config.registry import LEARNED_AUGMENTATIONS
from metaflowkit.config.schema import Count, Positive


@LEARNED_AUGMENTATIONS.register("affine")
class LearnedAffine(nn.Module):
    """Kornia's affine warp of each support image, anew in every inner step: rotation, shift, scale and shear are uniform noise times a strength.

    The strengths are exp(rate w), where the w are meta-parameters (``augment.strength.*``): they stay above 0, and the step size of the
    outer optimiser moves their logarithms ``rate`` times as fast as it moves weights. A point p of the image
    goes to R(a) S(s) H(h) (p - c) + c + t, where the angle is a = degrees u1, the shift t = translate * side * (u2, u3), the
    scale exp(scale u4) and the shear shear u5 in degrees, each u uniform in [-1, 1] and c the image's centre.

    Args:
        shape: (C, H, W) of the images.
        copies: of each support image, each warped by itself.
        degrees: strength of the rotation to begin with.
        translate: of the shift, a share of the image's side.
        scale: of the scale's logarithm.
        shear: in degrees.
        rate: of the strengths' logarithms beside that of weights.
    """

    draws_random = True

    def __init__(
        self,
        shape: tuple[int, ...],
        copies: Count = 4,
        degrees: Positive = 5.0,
        translate: Positive = 0.05,
        scale: Positive = 0.05,
        shear: Positive = 3.0,
        rate: Positive = 10.0,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"affine warps images [C, H, W], got examples of shape {tuple(shape)}; leave inner.augment out")
        self.size, self.copies, self.rate = (int(shape[1]), int(shape[2])), copies, rate
        starts = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
        self.strength = nn.ParameterDict({name: nn.Parameter(torch.tensor(math.log(start) / rate)) for name, start in starts.items()})

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of images [n, C, H, W] and their labels [n]: [copies n, C, H, W] and [copies n]."""
        x, y = x.repeat(self.copies, 1, 1, 1), y.repeat(self.copies)
        noise = (2 * torch.rand(len(x), 5, dtype=torch.float32, device=x.device) - 1).to(x.dtype)  # the same draws in float64
        strength = {name: (self.rate * w).exp() for name, w in self.strength.items()}
        angle = noise[:, 0] * strength["degrees"] * (math.pi / 180)
        shift = noise[:, 1:3] * strength["translate"]
        scale = (noise[:, 3] * strength["scale"]).exp()
        shear = (noise[:, 4] * strength["shear"] * (math.pi / 180)).tan()
        height, width = self.size
        centre = x.new_tensor([(width - 1) / 2, (height - 1) / 2])
        cosine, sine = angle.cos() * scale, angle.sin() * scale
        linear = torch.stack([cosine, cosine * shear - sine, sine, sine * shear + cosine], 1).reshape(-1, 2, 2)
        offset = centre + shift * x.new_tensor([width, height]) - (linear @ centre[:, None])[..., 0]
        return warp_affine(x, torch.cat([linear, offset[..., None]], 2), self.size, align_corners=True), y
