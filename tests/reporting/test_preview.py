"""mfk preview: the pixels of the sheet are those that training sees, beside the images that they were made of."""

from __future__ import annotations

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.reporting.contact_sheet import GAP, MARGIN, TILE
from tests.small import SMALL


def mfk(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def grid(path, top: int, rows: int, columns: int) -> np.ndarray:
    """The tiles of a task, [rows, columns, 28, 28], drawn at twice their size."""
    sheet = np.asarray(Image.open(path).convert("L"))
    inset = (TILE - 56) // 2
    corners = [[(top + r * (TILE + GAP) + inset, MARGIN + c * (TILE + GAP) + inset) for c in range(columns)] for r in range(rows)]
    return np.array([[sheet[y : y + 56 : 2, x : x + 56 : 2] for y, x in row] for row in corners])


def top_of(path) -> int:
    """Where the first row begins: below the headings, at the first black row of pixels of the first tile."""
    sheet = np.asarray(Image.open(path).convert("L"))
    inset = (TILE - 56) // 2
    column = sheet[:, MARGIN + inset : MARGIN + inset + 56]
    return next(y for y in range(len(column)) if (column[y] == 0).all()) - inset


def expected(x: torch.Tensor) -> np.ndarray:
    return (255 * x.clamp(0, 1)).round().to(torch.uint8).numpy()[:, 0]


def test_the_sheet_shows_what_training_sees(write, tmp_path) -> None:
    path = write(SMALL)
    text = mfk("preview", path, "-o", tmp_path / "tasks.png", "--tasks", 2)
    assert text == f"written: {tmp_path / 'tasks.png'} (2 tasks of 3 classes)\n"
    flow = build(read(path))
    raw, seen = flow.tasks.episode(1), flow.episode(1)
    tiles = grid(tmp_path / "tasks.png", top_of(tmp_path / "tasks.png"), rows=3, columns=4)
    for c in range(3):
        assert (tiles[c, 0] == expected(raw.support.x[0][raw.support.y[0] == c].float() / 255)[0]).all()
        assert (tiles[c, 1:3] == expected(seen.support.x[0][seen.support.y[0] == c])).all()
        assert (tiles[c, 3] == expected(seen.query.x[0][seen.query.y[0] == c])[0]).all()
    assert (tiles[0, 1] != tiles[0, 2]).any()


def test_all_levels_stand_beside_the_same_images(write, tmp_path) -> None:
    path = write(SMALL)
    mfk("preview", path, "-o", tmp_path / "levels.png", "--tasks", 1, "--levels")
    tiles = grid(tmp_path / "levels.png", top_of(tmp_path / "levels.png"), rows=3, columns=1 + 4 * 3)
    for level in range(1, 5):
        query = build(read(path, [f"augment.level={level}"])).episode(1).query
        assert (tiles[:, 3 * level] == expected(query.x[0])).all()


def test_labelled_tasks_show_each_image(write, tmp_path) -> None:
    path = write(
        SMALL.replace("tasks: {name: views,", "tasks: {name: labelled,")
        .replace("augment: {level: 1}", "augment: []")
        .replace("val_episodes: 4", "val_episodes: 4, views: 2")
    )
    mfk("preview", path, "-o", tmp_path / "tasks.png", "--tasks", 1)
    tiles = grid(tmp_path / "tasks.png", top_of(tmp_path / "tasks.png"), rows=3, columns=6)
    assert (tiles[:, :3] == tiles[:, 3:]).all()  # two support images and one query image, not augmented
    assert (tiles[0, 0] != tiles[0, 1]).any()


def test_tasks_of_no_images_are_refused_and_nothing_is_written(tmp_path) -> None:
    text = mfk("preview", "pipelines/sinusoid.yaml", "-o", tmp_path / "tasks.png", code=2)
    assert text.endswith("tasks: are not made of images, got 'sinusoid'; preview a pipeline of images\n")
    assert not (tmp_path / "tasks.png").exists()
