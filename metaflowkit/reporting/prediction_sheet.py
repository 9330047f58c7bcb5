"""A contact sheet of predictions: the labelled images of each class, then the images that were given it, the surest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from metaflowkit.prediction.command import NONE, Row
from metaflowkit.reporting.contact_sheet import GAP, MARGIN, TEXT, TILE, blank, paste, png, write

COLUMNS = 10
MOST_SUPPORT, MOST_ROWS = 10, 6  # labelled images of a class that are shown, and rows of predicted ones
LINE = TEXT + GAP
GREY = "dimgrey"


def prediction_sheet(rows: Sequence[Row], support: Mapping[str, Tensor]) -> bytes:
    """The sheet as PNG.

    Args:
        rows: the answers.
        support: the labelled images of each class, uint8 [n, C, S, S].
    """
    answered = sorted((row for row in rows if row.answer is not None), key=lambda row: -row.answer.probability if row.answer else 0.0)
    groups = [
        (label, images, [row for row in answered if row.answer and row.answer.known and str(row.answer.label) == label]) for label, images in support.items()
    ]
    sheets = [_group(label, images, members) for label, images, members in groups]
    if strangers := [row for row in answered if row.answer and not row.answer.known]:
        sheets.append(_group(NONE, None, strangers))
    return png(sheets)


def _group(label: str, support: Tensor | None, members: Sequence[Row]) -> Image.Image:
    shown = members[: MOST_ROWS * COLUMNS]
    lines = -(-len(shown) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * (TILE + GAP)
    labelled = LINE + TILE + GAP if support is not None else 0
    sheet = blank(width, MARGIN + LINE + labelled + LINE + lines * (TILE + LINE) + GAP)
    top = MARGIN
    write(sheet, label, MARGIN, top, width - 2 * MARGIN)
    top += LINE
    if support is not None:
        write(sheet, f"labelled ({len(support)})", MARGIN, top, ink=GREY)
        for i, image in enumerate(support[:MOST_SUPPORT]):
            paste(sheet, image, MARGIN + i * (TILE + GAP), top + LINE)
        top += labelled
    more = f", the surest {len(shown)} shown" if len(shown) < len(members) else ""
    write(sheet, f"predicted ({len(members)}{more})", MARGIN, top, ink=GREY)
    top += LINE
    for i, row in enumerate(shown):
        left, y = MARGIN + i % COLUMNS * (TILE + GAP), top + i // COLUMNS * (TILE + LINE)
        assert row.image is not None
        assert row.answer is not None
        paste(sheet, row.image, left, y)
        write(sheet, f"{100 * row.answer.probability:.0f} %", left, y + TILE, TILE, GREY)
    return sheet
