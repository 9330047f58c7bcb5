"""timm's networks by name."""

from __future__ import annotations

from typing import Any, Literal

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Side, nearest
from metaflowkit.errors import require_extra
from metaflowkit.models.backbones.foreign import IMAGENET_MEAN, IMAGENET_STD, ForeignNetwork


@BACKBONES.register("timm")
class TimmNetwork(ForeignNetwork):
    """A network of timm (PyTorch image models) without its classifier, such as ``vit_small_patch16_224`` or ``resnet26d``.

    timm is an extra: ``pip install 'metaflowkit[timm]'``. Nothing is downloaded; weights come from the local file ``model.weights``. Networks with
    positions, such as vision transformers, are built for the images' side (or ``size``), with which the file has to agree.

    Args:
        shape: (C, H, W) of the images; grey ones are given to it as three equal channels.
        architecture: its name, one of ``timm.list_models()``.
        norm: the statistics of its batch normalisation: ``running``, those of the file of weights, never changed; ``batch``, those of the current set;
            ``per_step``, ``frozen``, ``group`` as in conv4; null for ``running`` where ``model.weights`` is given, else ``batch``.
        size: side in pixels that images are resized to, such as the one of its pretraining; null for their own.
        mean: of each channel, values in 0..1, subtracted from images; null for that of its pretraining where ``model.weights`` is given, else none.
        std: of each channel, which divides.
        pretrained: whether weights are loaded.

    Raises:
        ValueError: timm is not installed, there is no such architecture, or it cannot read these images.
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
        require_extra("timm")
        import timm

        if not timm.is_model(architecture):
            raise ValueError(f"architecture: timm has no network {architecture!r}; {nearest(architecture, timm.list_models())}")
        try:
            network: Any = timm.create_model(architecture, pretrained=False, num_classes=0, img_size=size or shape[-1])
        except TypeError:  # a network that reads images of any size
            network = timm.create_model(architecture, pretrained=False, num_classes=0)
        settings = network.pretrained_cfg
        classifiers = settings.get("classifier") or ()
        classifiers = [classifiers] if isinstance(classifiers, str) else list(classifiers)
        if pretrained and mean is None and std is None:
            mean, std = list(settings.get("mean", IMAGENET_MEAN)), list(settings.get("std", IMAGENET_STD))
        super().__init__(shape, network, [f"{name}.*" for name in classifiers], norm, pretrained, size, mean, std)
