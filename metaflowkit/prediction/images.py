"""Images in whatever form a user has them, as the network reads them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metaflowkit.datasets.images import Decoding, open_image, to_array
from metaflowkit.errors import DataError

ImageLike = Union[str, "PathLike[str]", Image.Image, NDArray[Any]]
Images = Union[Sequence[ImageLike], NDArray[Any], Tensor]


def as_images(images: Images, decoding: Decoding) -> Tensor:
    """Images as uint8 [n, C, S, S].

    Args:
        images: files, PIL images, or arrays [H, W] or [H, W, C], uint8 in 0..255 or float in 0..1; or a tensor of the result's shape.
        decoding: the result's size and channels.

    Raises:
        DataError: one is no image; its position or name is said.
    """
    channels = 1 if decoding.mode == "grey" else 3
    if isinstance(images, Tensor):
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (channels, decoding.size, decoding.size):
            raise DataError(
                f"images: a tensor must be uint8 [n, {channels}, {decoding.size}, {decoding.size}], got {images.dtype} {list(images.shape)}; give arrays or files, "
                "which are converted"
            )
        return images
    if isinstance(images, (str, PathLike, Image.Image)):
        raise DataError("images: must be several, got one; put it into a list")
    decoded = [_decoded(image, i, decoding) for i, image in enumerate(images)]
    return torch.from_numpy(np.stack(decoded)) if decoded else torch.zeros(0, channels, decoding.size, decoding.size, dtype=torch.uint8)


def _decoded(image: Any, position: int, decoding: Decoding) -> np.ndarray:
    where = f"image {position}"
    try:
        if isinstance(image, (str, PathLike)):
            where = str(image)
            with open_image(Path(image).read_bytes()) as opened:
                return to_array(opened, decoding)
        return to_array(image if isinstance(image, Image.Image) else _from_array(np.asarray(image)), decoding)
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: {error}") from None


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise ValueError(f"must be an array [H, W] or [H, W, 1, 3 or 4], got {list(pixels.shape)}; move its axes")
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # neither holds for NaN
            raise ValueError(f"holds floats from {pixels.min():g} to {pixels.max():g}; scale them to 0..1")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"must hold uint8 in 0..255 or floats in 0..1, got {pixels.dtype}; convert it")
    return Image.fromarray(np.ascontiguousarray(pixels))
