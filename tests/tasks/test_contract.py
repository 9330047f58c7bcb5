"""Task samplers that break their contract are refused by name before anything is trained."""

from __future__ import annotations

import pytest
import torch

import metaflowkit as mfk
from metaflowkit.errors import ConfigError
from metaflowkit.types import Episode, Labelled

X, Y = torch.zeros(2, 3, 1, 28, 28), torch.arange(3).expand(2, -1)


class Given:
    """Returns what it was given."""

    def __init__(self, episode) -> None:
        self.given = episode

    def episode(self, step: int):
        return self.given


@pytest.mark.parametrize(
    ("episode", "says"),
    [
        ((X, Y), "episode(step) must return an Episode, got tuple; return Episode(support, query, way)"),
        (Episode(X, X, 3), "episode(step).support must be Labelled(x, y) with tensors, got Tensor"),
        (Episode(Labelled(X[0], Y[0]), Labelled(X, Y), 3), "episode(step).support.x must have the shape [tasks, examples, 1, 28, 28], got [3, 1, 28, 28]"),
        (Episode(Labelled(X, Y), Labelled(X[..., :14], Y), 3), "episode(step).query.x must have the shape [tasks, examples, 1, 28, 28], got [2, 3, 1, 28, 14]"),
        (Episode(Labelled(X, Y.float()), Labelled(X, Y), 3), "episode(step).support.y must be int64 of shape [2, 3], got float32 [2, 3]"),
        (Episode(Labelled(X, Y), Labelled(X, Y), 2), "episode(step).support.y must hold classes of 0 to 1 (way - 1)"),
        (Episode(Labelled(X, Y), Labelled(X[:1], Y[:1]), 3), "episode(step) must have as many tasks in support and query, got 2 and 1"),
    ],
)
def test_what_came_and_what_was_expected(episode, says) -> None:
    pipeline = mfk.pipeline(
        {
            "dataset": {"name": "glyphs", "train": ["cyrillic"], "test": ["georgian"]},
            "tasks": Given(episode),
            "evaluate": {"readouts": ["prototype"], "way": 3, "query": 2},
        },
        name="mine",
    )
    with pytest.raises(ConfigError) as caught:
        mfk.build(pipeline)
    assert f"tasks: {says}" in str(caught.value)
