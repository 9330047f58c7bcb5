"""What ``mfk consistency`` writes: a table, a picture of views, and the numbers as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metaflowkit.composition.flow import build
from metaflowkit.composition.suggestion import widest
from metaflowkit.config.pipeline import read
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import RunError
from metaflowkit.evaluation.consistency import NONE, Consistency, Views, chance, consistency, draw_views, suggested
from metaflowkit.training.evaluate_run import load
from metaflowkit.training.run_directory import Run

SHOWN = 8  # images of the picture
PICTURE, NUMBERS = "views.png", "consistency.json"


def check_consistency(path: Path, overrides: Sequence[str], folder: Path, split: str, count: int, views: int) -> list[str]:
    """Measure, write ``consistency.json`` and ``views.png``, and return the lines of the table.

    Args:
        path: a pipeline file, or a run directory, whose best weights are measured beside the untrained ones.
        overrides: changes to the pipeline.
        folder: where the files are written.
        split: whose classes are looked at.
        count: images at most.
        views: of each image.

    Raises:
        ConfigError, DataError: see :func:`metaflowkit.evaluation.consistency.draw_views`.
        RunError: the files cannot be written, or the folder is no run directory.
    """
    run = Run(path) if path.is_dir() else None
    if run is not None:
        run.pipeline()
    flow = build(read(run.folder / "pipeline.yaml" if run is not None else path, overrides))
    drawn = draw_views(flow, split, count, views)
    weights = [("untrained", dict(flow.model.state_dict()))]
    if run is not None:
        weights = [
            ("untrained", {name: tensor.clone() for name, tensor in weights[0][1].items()}),
            ("trained", load(path, overrides=overrides).model.state_dict()),
        ]
    rows = consistency(flow, drawn, weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / NUMBERS, json.dumps([dataclasses.asdict(row) for row in rows], indent=1).encode())
        if drawn.images.dim() == 4:
            write_atomic(folder / PICTURE, picture(drawn))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); choose another folder with -o") from None
    level = suggested(rows)
    advice = (
        f"no level hides the own image from {rows[0].space}; list stronger operations"
        if level is None
        else (f"suggested: augment.level={level.level}, the mildest at which {rows[0].space} find the own image of fewer than 10 % of the views")
    )
    labelled = build(flow.pipeline, train=False).splits.get("train")  # with its classes, which no task is given
    return [
        *table(rows, chance(drawn.y), flow.unit.removesuffix("s")),
        advice,
        *([collisions(labelled.y, flow.interface.way, flow.unit)] if labelled is not None and labelled.classes else []),
        f"written to {folder}: {', '.join(file for file in (NUMBERS, PICTURE) if (folder / file).is_file())}",
    ]


def table(rows: Sequence[Consistency], by_chance: float, noun: str = "image") -> list[str]:
    """The rows as lines, the spaces beside each other; ``noun`` is what an example is."""
    spaces = list(dict.fromkeys(row.space for row in rows))
    by_place = {(row.level, row.space): row for row in rows}
    lines = [
        f"a view's nearest {noun} is its own / the nearest other {noun} has its class, in %",
        f"{'level':<8}" + "".join(f"{space:>24}" for space in spaces),
    ]
    for level in dict.fromkeys(row.level for row in rows):
        cells = (by_place[level, space] for space in spaces)
        lines.append(f"{level:<8}" + "".join(f"{100 * row.own_image:>10.1f} / {100 * row.own_class:4.1f} ± {100 * row.ci95:3.1f}" for row in cells))
    n = rows[0].images
    return [*lines, f"({n} {noun}s; by chance {100 / n:.1f} / {100 * by_chance:.1f}; ± 95 % confidence over {noun}s; level none are the {noun}s themselves)"]


def collisions(y: Tensor, way: int, nouns: str) -> str:
    """How often the pseudo-classes of a task are of one true class, as a line, and what to do where it is often.

    Args:
        y: the classes of the training examples, [n].
        way: pseudo-classes of a task.
        nouns: what the examples are.
    """
    same = chance(y)
    text = f"in a task of {way} {nouns}, each has {same * (way - 1):.2g} others of its own class on average"
    if way <= widest(same):
        return text
    return f"{text}, from which it is told apart: lower tasks.way to {widest(same)}, take data of more classes, or subtract them with same_class: {same:.2g} in a contrastive loss"


def picture(drawn: Views) -> bytes:
    """Some images beside their views, a row for each image, two views of each level."""
    from matplotlib.figure import Figure

    rows = torch.linspace(0, len(drawn.images) - 1, min(SHOWN, len(drawn.images))).long().tolist()
    columns = [("image", drawn.images)] + [
        (f"level {level}" if level.isdecimal() else level, v) for level, of in drawn.views.items() if level != NONE for v in of[:2]
    ]
    figure = Figure(figsize=(len(columns), len(rows) + 0.3), layout="constrained")
    for r, row in enumerate(rows):
        for c, (title, images) in enumerate(columns):
            axes = figure.add_subplot(len(rows), len(columns), r * len(columns) + c + 1)
            image = images[row].cpu().movedim(0, -1).numpy()
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image[..., :3], cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
            if r == 0:
                axes.set_title(title, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
