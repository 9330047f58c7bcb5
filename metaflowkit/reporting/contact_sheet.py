"""Small images on a sheet, as PNG: tiles in rows, with text beside or below them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metaflowkit.errors import printable

TILE, GAP, MARGIN, TEXT = 64, 4, 16, 14  # pixels
INK, PAPER = "black", "white"


def tile(image: Tensor) -> Image.Image:
    """An image [C, H, W], uint8 or floats in 0..1, enlarged by a whole number where it is smaller than a tile, else made smaller."""
    if image.is_floating_point():
        image = (255 * image.clamp(0, 1)).round().to(torch.uint8)
    pixels = image.movedim(0, -1).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).convert("RGB")
    factor = TILE // max(picture.size)
    if factor:
        return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    return picture.resize((TILE, TILE), Image.Resampling.BOX)


def blank(width: int, height: int) -> Image.Image:
    """An empty sheet."""
    return Image.new("RGB", (width, height), PAPER)


def paste(sheet: Image.Image, image: Tensor, left: int, top: int) -> None:
    """Put an image into the middle of the tile whose corner is given."""
    drawn = tile(image)
    sheet.paste(drawn, (left + (TILE - drawn.width) // 2, top + (TILE - drawn.height) // 2))


def write(sheet: Image.Image, text: str, left: int, top: int, width: int | None = None, ink: str = INK) -> None:
    """Write a line of text, cut where it is wider than ``width`` pixels."""
    text = printable(text)
    font, draw = ImageFont.load_default(TEXT), ImageDraw.Draw(sheet)
    if width is not None and draw.textlength(text, font) > width:
        while text and draw.textlength(f"{text}…", font) > width:
            text = text[:-1]
        text = f"{text}…"
    draw.text((left, top), text, ink, font)


def png(sheets: Sequence[Image.Image]) -> bytes:
    """Sheets below each other as one PNG."""
    whole = blank(max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    buffer = io.BytesIO()
    whole.save(buffer, "png")
    return buffer.getvalue()
