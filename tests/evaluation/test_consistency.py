"""Views and their neighbours, where they are known; the picture's level; what the command writes and refuses."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.consistency import Consistency, Views, chance, consistency, draw_views, suggested
from metaflowkit.reporting.consistency import collisions
from tests.small import SMALL

PIPELINE = pipeline_of(yaml.safe_load(SMALL))


def test_shares_of_known_neighbours() -> None:
    """Four images on a line, two classes; views moved so that two are found, and of three the nearest other image has the class."""
    flow = build(PIPELINE)
    images, y = torch.tensor([0.0, 0.2, 0.7, 0.9]).view(4, 1, 1, 1).expand(4, 1, 28, 28), torch.tensor([0, 0, 1, 1])
    moved = torch.tensor([0.05, 0.0, 0.6, 0.3]).view(1, 4, 1, 1, 1).expand(1, 4, 1, 28, 28)
    rows = consistency(flow, Views(images, y, {"none": images[None], "1": moved}))
    assert [(row.level, row.space) for row in rows] == [("none", "pixels"), ("1", "pixels"), ("none", "untrained"), ("1", "untrained")]
    none, first = rows[:2]
    assert (none.own_image, none.own_class, none.images) == (1.0, 1.0, 4)
    assert (first.own_image, first.own_class) == (0.5, 0.75)  # 0.0 is found as the first image, 0.3 as the second, whose class it has not
    assert first.ci95 == pytest.approx(1.96 * 0.5 / 2)
    assert chance(y) == pytest.approx(1 / 3)


def test_views_are_drawn_of_the_same_images_at_every_level_and_again() -> None:
    flow = build(PIPELINE)
    drawn, again = (draw_views(flow, count=60, views=3) for _ in range(2))
    assert list(drawn.views) == ["none", "1", "2", "3", "4"]
    assert all(torch.equal(views, again.views[level]) for level, views in drawn.views.items())
    assert all(views.shape[1:] == drawn.images.shape for views in drawn.views.values())
    assert torch.bincount(drawn.y).unique().tolist()[-1] >= 10  # few classes of many images rather than many of few
    changes = [(drawn.views[level] - drawn.images).square().mean().item() for level in drawn.views]
    assert changes[0] == 0
    assert changes == sorted(changes)
    listed = build(pipeline_of({**yaml.safe_load(SMALL), "augment": ["RandomHorizontalFlip"]}))
    assert list(draw_views(listed, count=20).views)[-1] == "own"


def test_the_mildest_level_that_hides_the_image_is_suggested() -> None:
    rows = [Consistency(level, "pixels", found, 0.5, 0.0, 9) for level, found in (("none", 1.0), ("1", 0.4), ("2", 0.09), ("3", 0.01), ("own", 0.0))]
    rows += [Consistency("1", "untrained", 0.0, 0.5, 0.0, 9)]
    level = suggested(rows)
    assert level is not None
    assert level.level == "2"
    assert suggested(rows[:2]) is None


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_picture_also_of_a_run(write, tmp_path) -> None:
    path, run = write(SMALL), tmp_path / "run"
    trained = CliRunner().invoke(main, ["run", str(path), "--run-dir", str(run), "--quiet", "--set", "model.backbone.norm=per_step"])
    assert trained.exit_code == 0, trained.output
    shown = CliRunner().invoke(main, ["consistency", str(run), "-o", str(tmp_path / "out"), "--images", "40", "--views", "2"])
    assert shown.exit_code == 0, shown.output
    assert "in a task of 3 images, each has 0." in shown.output
    head, *table = shown.output.splitlines()[1:8]
    assert head.split() == ["level", "pixels", "untrained", "trained"]
    assert [line.split()[0] for line in table[:5]] == ["none", "1", "2", "3", "4"]
    assert "by chance 2.5 / " in table[5]
    numbers = json.loads((tmp_path / "out" / "consistency.json").read_text())
    assert len(numbers) == 15
    assert numbers[5]["own_class"] != numbers[10]["own_class"] or numbers[6]["own_image"] != numbers[11]["own_image"]  # trained weights were read
    assert (tmp_path / "out" / "views.png").read_bytes().startswith(b"\x89PNG")


def test_collisions_of_pseudo_classes() -> None:
    y = torch.arange(4).repeat_interleave(50)
    drawn = torch.stack([y[torch.randperm(200, generator=torch.Generator().manual_seed(i))[:20]] for i in range(4000)])
    others = ((drawn[:, :, None] == drawn[:, None]).double().sum((1, 2)) / 20 - 1).mean().item()
    text = collisions(y, 20, "images")
    assert text.startswith(
        f"in a task of 20 images, each has {others:.2g} others of its own class on average, from which it is told apart: lower tasks.way to 13"
    )
    assert text.endswith("or subtract them with same_class: 0.25 in a contrastive loss")
    assert collisions(y, 4, "texts") == "in a task of 4 texts, each has 0.74 others of its own class on average"
    assert collisions(y, 13, "images").endswith("on average")
    many = torch.arange(64).repeat_interleave(200)
    assert collisions(many, 128, "images") == "in a task of 128 images, each has 2 others of its own class on average"


def test_texts_are_compared_by_their_words(questions) -> None:
    text = {"dataset": {"name": "clinc150", "root": str(questions), "train": ["money"], "val": ["home"], "test": ["travel"]}}
    flow = build(pipeline_of({**text, "model": {"backbone": "text"}, "tasks": {"name": "views", "way": 2}, "evaluate": {"way": 2, "query": 2}}))
    rows = consistency(flow, draw_views(flow, count=20))
    assert rows[0].space == "words"
    assert rows[0].own_image == 1


def test_what_is_refused(write) -> None:
    with pytest.raises(ConfigError, match="consistency: the tasks 'sinusoid' are not made of views of examples"):
        draw_views(
            build(pipeline_of({"tasks": "sinusoid", "model": {"backbone": {"name": "mlp", "widths": [4]}, "head": "linear"}, "inner": {"loss": "task"}}))
        )
    with pytest.raises(DataError, match="split 'train': has no classes"):
        draw_views(build(PIPELINE), "train")
    result = CliRunner().invoke(main, ["consistency", str(write(SMALL)), "-o", "/proc/nowhere", "--images", "20"])
    assert (result.exit_code, result.output) == (1, "mfk: /proc/nowhere: cannot be written (No such file or directory); choose another folder with -o\n")
