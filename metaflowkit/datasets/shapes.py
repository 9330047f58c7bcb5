"""Images of another data set, with the channels and the size that a network reads."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from metaflowkit.errors import DataError
from metaflowkit.types import ExampleSet

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts colours to grey
CHUNK = 1024  # images that are held as floats at a time


def as_shape(examples: ExampleSet, shape: tuple[int, ...]) -> ExampleSet:
    """The examples as images [n, *shape], with a note of what was changed; the same where their shape is this one.

    Grey becomes three equal channels, colours become grey by their luma, and another size is interpolated (bilinear, antialiased).

    Args:
        examples: images, uint8 in 0..255 or float in 0..1.
        shape: (C, H, W).

    Raises:
        DataError: they are no images, or their channels cannot be converted.
    """
    own = tuple(examples.x.shape[1:])
    if own == tuple(shape):
        return examples
    if examples.modality != "images" or len(shape) != 3 or not {own[0], shape[0]} <= {1, 3}:
        raise DataError(
            f"dataset: its {examples.modality} of shape {'x'.join(map(str, own))} cannot be read by a network trained on {'x'.join(map(str, shape))}; "
            "choose images of 1 or 3 channels"
        )
    x = torch.cat([_converted(chunk, shape) for chunk in torch.split(examples.x, CHUNK)]) if len(examples.x) else examples.x.new_empty(0, *shape)
    change = f"images of {'x'.join(map(str, own))} are converted to {'x'.join(map(str, shape))}, the size of the training images"
    return dataclasses.replace(examples, x=x, note="; ".join(note for note in (examples.note, change) if note))


def _converted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    values = x.float()
    if x.shape[1] == 3 and shape[0] == 1:
        values = (values * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if values.shape[2:] != shape[1:]:
        values = F.interpolate(values, shape[1:], mode="bilinear", antialias=True)
    values = values.expand(-1, shape[0], -1, -1)
    return values.round().clamp(0, 255).to(torch.uint8) if x.dtype == torch.uint8 else values.clamp(0, 1).contiguous()
