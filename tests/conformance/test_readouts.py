"""Every readout on classes that features separate perfectly: all queries are classified, and scores follow the order of queries and the labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import metaflowkit as mfk
from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import READOUTS
from metaflowkit.evaluation.base import Shown
from metaflowkit.types import Episode, ImageSet, Labelled

NAMES = sorted(READOUTS.entries())
TASKS, WAY, SHOT, QUERY = 2, 4, 2, 3


def images(classes: torch.Tensor, seed: int) -> torch.Tensor:
    """A bright pixel at the number of the class, and noise in which the classes do not overlap."""
    noise = 0.05 * torch.rand(*classes.shape, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return noise + 0.9 * nn.functional.one_hot(classes, 16).view(*classes.shape, 1, 4, 4)


class Pixels:
    """Sixteen classes of four images."""

    def load(self) -> dict[str, ImageSet]:
        y = torch.arange(4).repeat_interleave(4)
        starts = {"train": 0, "val": 4, "test": 8}
        return {split: ImageSet(images(first + y, first), y, tuple(f"{split} {k}" for k in range(4))) for split, first in starts.items()}


class Identity(nn.Module):
    """Pixels as features, by a layer that the inner steps can move."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.layer = 16, nn.Linear(16, 16, bias=False)
        nn.init.eye_(self.layer.weight)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.fixture
def flow():
    settings = {
        "dataset": Pixels(),
        "augment": [],
        "tasks": {"name": "labelled", "way": WAY, "shot": SHOT, "query": 1},
        "model": {"backbone": Identity(), "head": "prototype"},
        "inner": {"loss": "prototype", "steps": 1},
        "objective": "query_loss",
        "evaluate": {"way": WAY, "query": 1, "shot": SHOT},
        "device": "cpu",
    }
    return mfk.build(mfk.pipeline(settings))


def task(turn: int = 0) -> Episode:
    """Tasks with the classes' labels turned by a number."""
    y = [torch.arange(WAY).repeat_interleave(count).repeat(TASKS, 1) for count in (SHOT, QUERY)]
    return Episode(*(Labelled(images(labels, seed), (labels + turn) % WAY) for seed, labels in enumerate(y)), WAY)


def scores(flow, name: str, episode: Episode) -> torch.Tensor:
    return READOUTS.build(Choice(name))(Shown(flow, episode, "evaluate/test", 0))


@pytest.mark.parametrize("name", NAMES)
def test_separated_classes_are_told_apart(flow, name) -> None:
    episode = task()
    result = scores(flow, name, episode)
    assert result.shape == (TASKS, WAY * QUERY, WAY)
    assert result.isfinite().all()
    assert torch.equal(result.argmax(-1), episode.query.y)


@pytest.mark.parametrize("name", NAMES)
def test_scores_follow_the_order_of_the_queries(flow, name) -> None:
    episode = task()
    order = torch.randperm(WAY * QUERY, generator=torch.Generator().manual_seed(1))
    permuted = episode._replace(query=Labelled(episode.query.x[:, order], episode.query.y[:, order]))
    torch.testing.assert_close(scores(flow, name, permuted), scores(flow, name, episode)[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_scores_follow_the_labels_of_the_support_alone(flow, name) -> None:
    expected = scores(flow, name, task()).roll(1, -1)
    episode = task(turn=1)
    torch.testing.assert_close(scores(flow, name, episode), expected, rtol=1e-3, atol=1e-4)
    unlabelled = episode._replace(query=Labelled(episode.query.x, torch.zeros_like(episode.query.y)))
    torch.testing.assert_close(scores(flow, name, unlabelled), expected, rtol=1e-3, atol=1e-4)  # labels of queries are not read
