"""Tasks without labels: properties of every episode, and that labels cannot reach them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.datasets.glyphs import Glyphs
from metaflowkit.errors import DataError
from metaflowkit.tasks.views import Views

POOL = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 1, 2, 2).contiguous()
SMALL = "dataset: glyphs\ntasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}\nmodel: {backbone: {name: conv4, width: 4}}\ninner: {steps: 1}\n"


@given(seed=st.integers(0, 99), step=st.integers(1, 999), way=st.integers(1, 30), shot=st.integers(1, 3), query=st.integers(1, 3), tasks=st.integers(1, 3))
def test_every_episode_is_pure_and_made_of_copies_of_different_images(seed, step, way, shot, query, tasks) -> None:
    episode = Views(POOL, seed, way, shot, query, tasks).episode(step)
    again = Views(POOL, seed, way, shot, query, tasks).episode(step)
    for part, count in ((episode.support, shot), (episode.query, query)):
        assert part.x.shape == (tasks, way * count, 1, 2, 2)
        assert part.x.dtype == torch.uint8
        assert part.y.tolist() == [[c for c in range(way) for _ in range(count)]] * tasks
    assert torch.equal(episode.support.x, again.support.x)
    for t in range(tasks):
        image = episode.support.x[t, ::shot, 0, 0, 0]
        assert len(set(image.tolist())) == way
        assert torch.equal(episode.query.x[t, :, 0, 0, 0], image.repeat_interleave(query))


def test_steps_and_seeds_differ() -> None:
    drawn = {tuple(Views(POOL, seed, 5).episode(step).support.x.flatten().tolist()) for seed in (0, 1) for step in (1, 2, 3)}
    assert len(drawn) == 6


def test_too_few_images() -> None:
    with pytest.raises(DataError, match=r"31 pseudo-classes need 31 images, the training split has 30; lower tasks\.way"):
        Views(POOL, 0, 31)


def test_a_share_of_the_pool_is_a_part_of_a_larger_share() -> None:
    def drawn(share: float, seed: int = 0) -> set[int]:
        views = Views(POOL, seed, 3, share=share)
        return {int(value) for step in range(200) for value in views.episode(step).support.x[..., 0, 0, 0].flatten()}

    assert len(drawn(0.2)) == 6
    assert drawn(0.2) < drawn(0.5) < drawn(1.0) == set(range(30))
    assert drawn(0.2, seed=1) != drawn(0.2)
    assert torch.equal(Views(POOL, 0, 3).episode(1).support.x, Views(POOL, 0, 3, share=1.0).episode(1).support.x)
    with pytest.raises(DataError, match=r"4 pseudo-classes need 4 images, the training split has 3 in a share of 0\.1; lower tasks\.way"):
        Views(POOL, 0, 4, share=0.1)


class Poison:
    """Labels that raise at whatever is done with them."""

    def __getattr__(self, name):
        raise AssertionError(f"training labels were read ({name})")

    __getitem__ = __len__ = __iter__ = __eq__ = __hash__ = __add__ = __bool__ = lambda self, *a: self.read  # type: ignore[assignment]


def test_training_labels_cannot_be_read(write, monkeypatch) -> None:
    load = Glyphs.load

    def poisoned(self):
        splits = load(self)
        return {**splits, "train": dataclasses.replace(splits["train"], y=Poison(), classes=Poison())}

    pipeline = read(write(SMALL))
    clean = build(pipeline)
    expected = clean.learner.outcome(clean.episode(1))
    monkeypatch.setattr(Glyphs, "load", poisoned)
    flow = build(pipeline)
    result = flow.learner.outcome(flow.episode(1))
    assert "train" not in flow.splits
    assert all(torch.equal(g, expected.gradients[name]) for name, g in result.gradients.items())
    with pytest.raises(AssertionError, match="training labels were read"):
        build(read(write(SMALL), ["tasks.name=labelled", "evaluate.readouts=[prototype]"]))
