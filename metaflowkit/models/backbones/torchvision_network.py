"""torchvision's classification networks by name."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Side, nearest
from metaflowkit.models.backbones.foreign import IMAGENET_MEAN, IMAGENET_STD, ForeignNetwork

INCEPTION = ("googlenet", "inception_v3")
CLASSIFIERS = ("fc", "classifier", "head", "heads")  # the names by which torchvision's networks end


@BACKBONES.register("torchvision")
class TorchvisionNetwork(ForeignNetwork):
    """A classification network of torchvision without its last layer, such as ``resnet50`` or ``convnext_tiny``.

    Args:
        shape: (C, H, W) of the images; grey ones are given to it as three equal channels.
        architecture: its name, one of ``torchvision.models.list_models()``.
        norm: the statistics of its batch normalisation: ``running``, those of the file of weights, never changed; ``batch``, those of the current set;
            ``per_step``, ``frozen``, ``group`` as in conv4; null for ``running`` where ``model.weights`` is given, else ``batch``.
        size: side in pixels that images are resized to, such as the one of its pretraining; null for their own.
        mean: of each channel, values in 0..1, subtracted from images; null for ImageNet's where ``model.weights`` is given, else none.
        std: of each channel, which divides.
        pretrained: whether weights are loaded.

    Raises:
        ValueError: there is no such architecture, or it cannot read these images.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        architecture: str = "resnet18",
        norm: Literal["running", "batch", "per_step", "frozen", "group"] | None = None,
        size: Side | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        pretrained: bool = False,
    ) -> None:
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        if architecture not in names:
            raise ValueError(f"architecture: torchvision has no classification network {architecture!r}; {nearest(architecture, names)}")
        inception = {"aux_logits": False, "init_weights": not pretrained, "transform_input": pretrained}  # as torchvision builds them with weights
        network: Any = torchvision.models.get_model(architecture, weights=None, **(inception if architecture in INCEPTION else {}))
        classifier = _without_last_layer(network, architecture)
        defaults = (IMAGENET_MEAN, IMAGENET_STD) if pretrained and mean is None and std is None else (mean, std)
        super().__init__(shape, network, [f"{classifier}.*", "AuxLogits.*", "aux1.*", "aux2.*"], norm, pretrained, size, *defaults)


def _without_last_layer(network: nn.Module, architecture: str) -> str:
    """Replace the last linear layer (a convolution in SqueezeNet) by nothing, and return its name."""
    end = next((name for name in CLASSIFIERS if hasattr(network, name)), None)
    layers: list[str] = (
        [] if end is None else [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and (name + ".").startswith(f"{end}.")]
    )
    if not layers:
        raise ValueError(f"architecture: the classifier of {architecture!r} is not where torchvision's networks have theirs; choose another architecture")
    above, _, last = layers[-1].rpartition(".")
    setattr(network.get_submodule(above), last, nn.Identity())
    return layers[-1]
