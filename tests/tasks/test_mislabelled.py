"""Mislabelled examples: how many, which, and that clean, noisy and held-out examples are apart; oracle: the data set itself."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.errors import DataError
from metaflowkit.tasks.mislabelled import Mislabelled
from metaflowkit.types import ExampleSet, Outputs

CLASSES = ("a", "b", "c", "d")


def split(first: int, count: int) -> ExampleSet:
    """Examples that are their own numbers; the class is the number modulo four."""
    x = torch.arange(first, first + count, dtype=torch.float32)[:, None]
    return ExampleSet(x, (x[:, 0].long() % 4), CLASSES)


SPLITS = {"train": split(0, 200), "val": split(200, 40), "test": split(240, 40)}


def test_the_share_is_flipped_to_other_classes_and_the_rest_keeps_its_label() -> None:
    tasks = Mislabelled(SPLITS, 0, flipped=0.4, clean=20)
    episode = tasks.episode(1)
    numbers, labels = episode.support.x[0, :, 0].long(), episode.support.y[0]
    wrong = labels != numbers % 4
    assert wrong.sum() == round(0.4 * 180)
    assert torch.equal(wrong, tasks.wrong)
    assert labels[wrong].unique().tolist() == [0, 1, 2, 3]
    clean = episode.query.x[0, :, 0].long()
    assert torch.equal(episode.query.y[0], clean % 4)
    assert set(clean.tolist()) | set(numbers.tolist()) == set(range(200))
    assert not set(clean.tolist()) & set(numbers.tolist())


def test_every_step_is_the_same_and_another_seed_another_task() -> None:
    tasks = Mislabelled(SPLITS, 0, clean=20)
    assert torch.equal(tasks.episode(1).support.y, tasks.episode(7).support.y)
    assert torch.equal(tasks.held_out("test", 0, 5, 1).support.y, tasks.episode(1).support.y)
    assert tasks.held_out("test", 0, 5, 1).query.x[0, 0, 0] == 240
    assert tasks.held_out("val", 0, 5, 1).query.x[0, 0, 0] == 200
    assert not torch.equal(Mislabelled(SPLITS, 1, clean=20).episode(1).support.x, tasks.episode(1).support.x)


def test_the_clean_set_alone() -> None:
    episode = Mislabelled(SPLITS, 0, clean=20, learn_from="clean").episode(1)
    assert torch.equal(episode.support.x, episode.query.x)


def test_what_is_measured_is_right_or_wrong_for_each_example() -> None:
    tasks = Mislabelled(SPLITS, 0, clean=20)
    task = tasks.held_out("test", 0, 1, 1)
    task = task._replace(query=type(task.query)(task.query.x[0], task.query.y[0]))
    scores = torch.zeros(40, 4)
    scores[:, 1] = 1
    assert torch.equal(tasks.measure(lambda x: Outputs(x, scores), task), (task.query.y == 1).double())


@pytest.mark.parametrize(
    ("splits", "settings", "says"),
    [
        ({"train": SPLITS["train"], "val": SPLITS["val"]}, {}, "need the splits train, val and test with the same classes, and test differs"),
        ({**SPLITS, "val": ExampleSet(torch.zeros(2, 1), torch.tensor([0, 1]), ("e", "f"))}, {}, "and val differs; split the data set by example"),
        (SPLITS, {"clean": 4}, "tasks.clean: must lie between 5 and 195, got 4"),
        (SPLITS, {"clean": 197}, "got 197"),
    ],
    ids=["no test", "other classes", "few clean ones", "few noisy ones"],
)
def test_refused(splits, settings, says) -> None:
    with pytest.raises(DataError, match=says):
        Mislabelled(splits, 0, **settings)
