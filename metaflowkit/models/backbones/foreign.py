"""What a network of another library needs to be a backbone here: inputs as it expects them, features in place of classes, layers that can be differentiated twice."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.models.normalisation import StoredNorm, build_norm

Norm = Literal["running", "batch", "per_step", "frozen", "group"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = 3


class ForeignNetwork(nn.Module):
    """A network of another library between preparation of its inputs and features [n, D].

    Grey images are given to it as three equal channels. Dropout and stochastic depth are switched off, in-place operations and fused attention, which
    cannot be differentiated twice, are replaced.

    Args:
        shape: (C, H, W) of the images.
        network: from images [n, 3, H, W] to features [n, D], its classifier removed.
        classifier: patterns of the names of that classifier in a file of weights.
        norm: of its batch normalisation: ``running`` statistics of the file, never changed, or one of :func:`metaflowkit.models.normalisation.build_norm`;
            None for ``running`` where weights are loaded, else ``batch``.
        pretrained: whether weights are loaded.
        size: side in pixels that images are resized to; None for their own.
        mean: of each channel, which is subtracted; None for no normalisation.
        std: of each channel, which divides.

    Raises:
        ValueError: the network cannot read these images, or gives no features [n, D].
    """

    reads = "images"
    network = "net"

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        network: nn.Module,
        classifier: list[str],
        norm: Norm | None,
        pretrained: bool,
        size: int | None,
        mean: tuple[float, ...] | list[float] | None,
        std: tuple[float, ...] | list[float] | None,
    ) -> None:
        super().__init__()
        if len(shape) != CHANNELS or shape[0] not in (1, CHANNELS):
            raise ValueError(f"reads grey or colour images [C, H, W], got examples of shape {tuple(shape)}; choose another backbone")
        if (mean is None) != (std is None) or any(values is not None and len(values) != CHANNELS for values in (mean, std)):
            raise ValueError(f"mean and std need three numbers each, one per channel, got {mean} and {std}; write both, or neither")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std must be above 0, got {list(std)}; write the deviation of each channel, for values in 0..1")
        self.net, self.classifier, self.size = network, classifier, size
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * CHANNELS).view(CHANNELS, 1, 1))
        self.register_buffer("std", torch.tensor(std or (1.0,) * CHANNELS).view(CHANNELS, 1, 1))
        _convert_norms(self.net, norm or ("running" if pretrained else "batch"))
        _make_twice_differentiable(self.net)
        self.train()
        self.features = self._features(shape)

    def train(self, mode: bool = True) -> ForeignNetwork:
        """Set the mode; batch normalisation with running statistics never updates them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                module.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Embed images [n, C, H, W], values in 0..1, as [n, D]."""
        if x.shape[1] == 1:
            x = x.expand(-1, CHANNELS, -1, -1)
        if self.size is not None and x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        return self.net((x - self.mean) / self.std)  # type: ignore[no-any-return]

    def _features(self, shape: tuple[int, ...]) -> int:
        """The number of features of an image of this shape, by a call."""
        try:
            with torch.no_grad():
                features: Any = self(torch.zeros(2, *shape))
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"cannot read images of {shape[1]}x{shape[2]} pixels ({reason}); set size to the side that it was made for") from None
        if not (isinstance(features, Tensor) and features.dim() == 2 and len(features) == 2):
            kind = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"gives {kind} for two images, and a backbone gives features [n, D]; choose an architecture for classification")
        return int(features.shape[1])


def _convert_norms(network: nn.Module, norm: Norm) -> None:
    """Let every batch normalisation take these statistics; its weights keep their names."""
    if norm == "running":
        return
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.BatchNorm2d) or isinstance(module, StoredNorm):
            continue
        if norm == "batch":
            module.track_running_stats, module.running_mean, module.running_var, module.num_batches_tracked = False, None, None, None
        elif type(module) is nn.BatchNorm2d:
            replacement: Any = build_norm(norm, module.num_features)
            replacement.eps = module.eps
            above, _, last = name.rpartition(".")
            setattr(network.get_submodule(above), last, replacement)
        else:
            raise ValueError(f"norm: {norm} cannot replace {name} ({type(module).__name__}), which does more than normalise; choose running or batch")


class _Hardsigmoid(nn.Module):
    """torch's own has no second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def _make_twice_differentiable(network: nn.Module) -> None:
    """Replace or switch off what is random, in place, or without second derivative."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Hardsigmoid):
            above, _, last = name.rpartition(".")
            setattr(network.get_submodule(above), last, _Hardsigmoid())
        if getattr(module, "inplace", False) is True:
            module.inplace = False
        if getattr(module, "fused_attn", False) is True:
            module.fused_attn = False
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
