"""Every registered kind of task is a pure function of (seed, step) with the one form of episode; oracle: the form in metaflowkit.types."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import TASKS
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet

X = torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1).expand(80, 3, 4, 4).contiguous()  # ten classes of eight images
IMAGES = ImageSet(X, torch.arange(10).repeat_interleave(8), tuple("abcdefghij"))
CASES = {"labelled": IMAGES, "views": IMAGES.unlabelled()}
FEW_SHOT = sorted(name for name, entry in TASKS.entries().items() if not entry.tags["measured"])
KINDS = pytest.mark.parametrize("name", FEW_SHOT)


def build(name: str, seed: int = 0, **settings: int):
    return TASKS.build(Choice(name, {"way": 5, "shot": 2, "query": 3, "meta_batch": 4, **settings}), images=CASES[name], seed=seed)


def same(one, other) -> bool:
    return torch.equal(one.support.x, other.support.x) and torch.equal(one.query.x, other.query.x)


def test_every_kind_has_a_case_and_says_whether_it_reads_labels() -> None:
    assert set(CASES) == set(FEW_SHOT)
    for name in FEW_SHOT:
        entry = TASKS.entries()[name]
        assert entry.tags["reads_labels"] is isinstance(CASES[name], ImageSet)
        assert not {"images", "seed"} & set(entry.settings)


@KINDS
def test_episodes_have_the_one_form(name) -> None:
    for way, shot, query, tasks in [(5, 2, 3, 4), (1, 1, 1, 1), (10, 3, 5, 2)]:
        episode = build(name, way=way, shot=shot, query=query, meta_batch=tasks).episode(1)
        assert episode.way == way
        for part, count in ((episode.support, shot), (episode.query, query)):
            assert part.x.shape == (tasks, way * count, 3, 4, 4)
            assert part.x.dtype == torch.uint8
            assert part.y.dtype == torch.int64
            assert part.y.tolist() == [sorted(list(range(way)) * count)] * tasks


@KINDS
def test_episodes_are_pure_in_seed_and_step(name) -> None:
    tasks = build(name)
    first = tasks.episode(7)
    tasks.episode(8)
    torch.rand(3)
    assert same(tasks.episode(7), first)
    assert same(build(name).episode(7), first)
    assert not same(tasks.episode(8), first)
    assert not same(build(name, seed=1).episode(7), first)


@KINDS
def test_drawing_leaves_the_global_generator_alone(name) -> None:
    state = torch.get_rng_state()
    build(name).episode(0)
    assert torch.equal(torch.get_rng_state(), state)


@KINDS
def test_the_tasks_of_a_step_differ_and_in_time_every_image_is_drawn(name) -> None:
    tasks = build(name)
    assert len({task.numpy().tobytes() for task in tasks.episode(0).support.x}) == 4
    seen = set()
    for step in range(60):
        seen |= set(tasks.episode(step).support.x[:, :, 0, 0, 0].flatten().tolist())
    assert seen == set(range(80))


@KINDS
def test_the_pool_is_left_as_it_was(name) -> None:
    before = X.clone()
    build(name).episode(0).support.x.zero_()
    assert torch.equal(X, before)


@KINDS
def test_a_way_beyond_the_pool_is_refused(name) -> None:
    with pytest.raises(DataError, match="lower"):
        build(name, way=81)
