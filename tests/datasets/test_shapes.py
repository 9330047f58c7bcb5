"""Images converted to the channels and size that a network reads, against Pillow's conversion to grey and torch's interpolation of constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.datasets.shapes import CHUNK, as_shape
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet, TokenSet

COLOUR = torch.randint(0, 256, (CHUNK + 3, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
Y = torch.zeros(len(COLOUR), dtype=torch.int64)


def test_colours_become_grey_as_pillow_does_it() -> None:
    grey = as_shape(ImageSet(COLOUR, Y, ("one",)), (1, 6, 6))
    assert grey.x.dtype == torch.uint8
    for i in (0, CHUNK + 2):
        expected = np.asarray(Image.fromarray(COLOUR[i].permute(1, 2, 0).numpy()).convert("L")).astype(int)
        assert np.abs(grey.x[i, 0].numpy().astype(int) - expected).max() <= 1
    assert (grey.classes, grey.note) == (("one",), "images of 3x6x6 are converted to 1x6x6, the size of the training images")
    assert torch.equal(grey.y, Y)


def test_grey_becomes_three_channels_and_another_size() -> None:
    grey = COLOUR[:4, :1].float() / 255
    shown = as_shape(ImageSet(grey, Y[:4], ("one",), note="first"), (3, 12, 12)).x
    assert shown.shape == (4, 3, 12, 12)
    assert torch.equal(shown[:, 0], shown[:, 2])
    torch.testing.assert_close(shown.mean((2, 3)), grey.mean((2, 3)).expand(-1, 3), atol=0.03, rtol=0)
    constant = as_shape(ImageSet(torch.full((2, 3, 50, 50), 77, dtype=torch.uint8), Y[:2], ("one",)), (3, 28, 28)).x
    assert (constant == 77).all()


def test_the_same_shape_is_left_alone_and_what_cannot_be_converted_is_refused() -> None:
    images = ImageSet(COLOUR, Y, ("one",))
    assert as_shape(images, (3, 6, 6)) is images
    with pytest.raises(DataError, match="its images of shape 2x6x6 cannot be read by a network trained on 1x6x6; choose images of 1 or 3 channels"):
        as_shape(ImageSet(COLOUR[:, :2], Y, ("one",)), (1, 6, 6))
    with pytest.raises(DataError, match="its tokens of shape 4 cannot be read by a network trained on 1x6x6"):
        as_shape(TokenSet(torch.ones(2, 4, dtype=torch.int64), Y[:2], ("one",)), (1, 6, 6))
