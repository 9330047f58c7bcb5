"""A contact sheet of training tasks: support and query views beside the images they were made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow, Flow, build
from metaflowkit.composition.inputs import as_inputs
from metaflowkit.config.types import Augment, Pipeline
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import ConfigError
from metaflowkit.reporting.contact_sheet import GAP, INK, MARGIN, TEXT, TILE, blank, paste, png, write
from metaflowkit.tasks.base import Tasks
from metaflowkit.types import Labelled

MOST_ROWS, MOST_VIEWS = 12, 4  # classes of a task, views of a class and role


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a sheet: its heading, of two lines, and an image for each row; None where there is none."""

    heading: tuple[str, str]
    images: list[Tensor | None]


def write_preview(pipeline: Pipeline, path: Path, tasks: int = 2, levels: bool = False) -> str:
    """Write a contact sheet of the first outer step's tasks, as training sees them, and return what it shows.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        path: of the picture, a PNG.
        tasks: how many, from successive outer steps where one has fewer.
        levels: the views of every level of augmentation side by side, instead of those of the pipeline.

    Raises:
        ConfigError: the tasks are not made of images.
        RunError: the file cannot be written.
    """
    variants = {f"level {level}": dataclasses.replace(pipeline, augment=Augment(level=level)) for level in range(1, 5)} if levels else {"": pipeline}
    flows = {title: _of_images(build(variant)) for title, variant in variants.items()}
    write_atomic(path, tasks_sheet(flows, tasks))
    way = next(iter(flows.values())).interface.way
    shown = min(way, MOST_ROWS)
    return f"{tasks} task{'s' * (tasks > 1)}, {shown} of {way} classes each" if shown < way else f"{tasks} task{'s' * (tasks > 1)} of {way} classes"


def tasks_sheet(flows: dict[str, FewShotFlow], tasks: int) -> bytes:
    """The contact sheet of the first tasks, a PNG; with several flows, the views by each beside each other under their titles."""
    return png([_drawn(_task(flows, index), f"task {index + 1}") for index in range(tasks)])


def _of_images(flow: Flow) -> FewShotFlow:
    if not isinstance(flow, FewShotFlow) or len(flow.shape) != 3:
        raise ConfigError(f"{flow.pipeline.place('tasks')}: are not made of images, got {flow.pipeline.tasks.name!r}; preview a pipeline of images")
    return flow


def _task(flows: dict[str, FewShotFlow], index: int) -> list[Column]:
    """The columns of a task: the image that each class was made of, then its views by role, for each variant of the augmentation."""
    columns: list[Column] = []
    for title, flow in flows.items():
        step, position = _place(flow, index)
        raw, seen = cast(Tasks, flow.tasks).episode(step), flow.episode(step)
        classes = sorted(set(cast(Tensor, raw.support.y)[position].tolist()))[:MOST_ROWS]
        if not columns:
            columns += _sources(_by_class(raw.support, position, classes), _by_class(raw.query, position, classes))
        for role, examples in (("support", seen.support), ("query", seen.query)):
            columns += _columns((title if role == "support" else "", role), [images[:MOST_VIEWS] for images in _by_class(examples, position, classes)])
    return columns


def _sources(support: list[Tensor], query: list[Tensor]) -> list[Column]:
    """The images that views are made of: one for each class, or those of support and query where they are different images."""
    if all(torch.equal(image, images[0]) for images, others in zip(support, query) for image in [*images, *others]):
        return _columns(("", "image"), [images[:1] for images in support])
    pairs = (("support", support), ("query", query))
    return [column for role, images in pairs for column in _columns(("images of", role), [of[:MOST_VIEWS] for of in images])]


def _place(flow: FewShotFlow, index: int) -> tuple[int, int]:
    """The outer step and the position in it of the task of this number."""
    each = flow.episode(1).support.y.shape[0]
    return 1 + index // each, index % each


def _by_class(examples: Labelled, position: int, classes: Sequence[int]) -> list[Tensor]:
    """The images of each class of a task, float in 0..1."""
    x, y = as_inputs(examples.x[position]).cpu(), examples.y[position].cpu()
    return [x[y == c] for c in classes]


def _columns(heading: tuple[str, str], by_class: list[Tensor]) -> list[Column]:
    count = max(map(len, by_class), default=0)
    return [Column(("", "") if i else heading, [images[i] if i < len(images) else None for images in by_class]) for i in range(count)]


def _drawn(columns: Sequence[Column], title: str) -> Image.Image:
    """One task as a picture: a row for each class."""
    rows = len(columns[0].images)
    lines = [MARGIN // 2 + i * (TEXT + GAP) for i in range(3)]  # the title, and the two of the headings
    top = lines[-1] + TEXT + 2 * GAP
    sheet = blank(2 * MARGIN + len(columns) * (TILE + GAP), top + rows * (TILE + GAP) + MARGIN)
    write(sheet, title, MARGIN, lines[0])
    for c, column in enumerate(columns):
        left = MARGIN + c * (TILE + GAP)
        for y, text in zip(lines[1:], column.heading):
            write(sheet, text, left, y)
        if c and any(column.heading):
            edge = left - GAP // 2 - 1
            ImageDraw.Draw(sheet).line([(edge, top), (edge, top + rows * (TILE + GAP) - GAP)], INK)
        for r, image in enumerate(column.images):
            if image is not None:
                paste(sheet, image, left, top + r * (TILE + GAP))
    return sheet
