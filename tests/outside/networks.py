"""Backbones as a stranger writes them, a plugin module: nothing in them was made for this library."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18

from metaflowkit.config.registry import BACKBONES


def small(norm) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), norm(4), nn.ReLU(), nn.Flatten())


class Small(nn.Module):
    """Two convolutions on images of 28x28."""

    def __init__(self, norm=lambda channels: nn.GroupNorm(1, channels)) -> None:
        super().__init__()
        self.layers, self.features = small(norm), 4 * 6 * 6

    def forward(self, x):
        return self.layers(x)


@BACKBONES.register("outside_resnet")
class Resnet(nn.Module):
    """torchvision's ResNet-18 as it comes, its in-place ReLUs and running statistics included.

    Args:
        evaluating: whether it is in eval mode.
    """

    def __init__(self, evaluating: bool = False) -> None:
        super().__init__()
        self.net = resnet18(weights=None)
        self.features, self.net.fc = self.net.fc.in_features, nn.Identity()
        if evaluating:
            self.eval()

    def forward(self, x):
        return self.net(x.expand(-1, 3, -1, -1))


@BACKBONES.register("outside_timm")
class Timm(nn.Module):
    """A network of timm as it comes, where timm is installed.

    Args:
        model: its name there.
    """

    def __init__(self, model: str = "resnet10t") -> None:
        super().__init__()
        import timm

        self.net = timm.create_model(model, in_chans=1, num_classes=0)
        self.features = self.net.num_features

    def forward(self, x):
        return self.net(nn.functional.interpolate(x, scale_factor=2))


@BACKBONES.register("outside_running")
class Running(Small):
    """torch's own batch normalisation.

    Args:
        evaluating: whether it is in eval mode.
    """

    def __init__(self, evaluating: bool = False) -> None:
        super().__init__(nn.BatchNorm2d)
        if evaluating:
            self.eval()


@BACKBONES.register("outside_mixed")
class Mixed(Small):
    """One layer of batch normalisation in eval mode, one in training mode."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d)
        self.layers[1].eval()


@BACKBONES.register("outside_instance")
class Instance(Small):
    """Normalisation of each image alone, with running statistics that a call in training mode writes."""

    def __init__(self) -> None:
        super().__init__(lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True))


@BACKBONES.register("outside_group")
class Group(Small):
    """Normalisation of each image alone."""

    def __init__(self) -> None:
        super().__init__()


class Whitening(nn.Module):
    """Batch statistics by hand, of a type that nobody knows."""

    def forward(self, x):
        return (x - x.mean(0)) / (x.var(0) + 1e-3).sqrt()


@BACKBONES.register("outside_whitened")
class Whitened(Small):
    """Features by hand-written batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.whitening = Whitening()

    def forward(self, x):
        return self.whitening(super().forward(x))


@BACKBONES.register("outside_noisy")
class Noisy(Small):
    """Draws at random by itself."""

    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(len(x), self.features)

    def __init__(self) -> None:
        super().__init__()


@BACKBONES.register("outside_frozen")
class Frozen(Small):
    """A network whose first layer, or all of it, is not to be trained.

    Args:
        whole: all of it.
    """

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        (self if whole else self.layers[:2]).requires_grad_(False)


@BACKBONES.register("outside_hooked")
class Hooked(Small):
    """A forward hook and a forward pre-hook, bound to the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].register_forward_hook(self.bend)
        self.layers[3].register_forward_pre_hook(lambda module, arguments: (arguments[0] * 1.5,))

    def bend(self, module, arguments, output):
        return output + output.sin()


@BACKBONES.register("outside_counting")
class Counting(Small):
    """Rebinds a buffer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return super().forward(x) / self.count


@BACKBONES.register("outside_saving")
class Saving(Small):
    """Saves memory with torch.utils.checkpoint.

    Args:
        reentrant: which of its variants.
    """

    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=self.reentrant)
