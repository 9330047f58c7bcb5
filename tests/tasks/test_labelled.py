"""Labelled episodes against the images and labels that they were drawn from."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.errors import DataError
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import ImageSet

# image i of class c is painted 10 c + i; class 7 has only two images
COUNTS = [6, 6, 6, 6, 6, 6, 6, 2]
Y = torch.tensor([c for c, n in enumerate(COUNTS) for _ in range(n)])
X = torch.tensor([10 * c + i for c, n in enumerate(COUNTS) for i in range(n)], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
IMAGES = ImageSet(X, Y, tuple("abcdefgh"))


@pytest.mark.parametrize("step", range(8))
def test_classes_are_true_and_no_image_is_shown_twice(step) -> None:
    episode = LabelledTasks(IMAGES, 0, way=4, shot=2, query=3, meta_batch=3).episode(step)
    for t in range(3):
        support, query = episode.support.x[t, :, 0, 0, 0], episode.query.x[t, :, 0, 0, 0]
        assert len(set(support.tolist()) | set(query.tolist())) == 4 * 5
        classes = (support // 10)[::2].tolist()
        assert len(set(classes)) == 4
        assert 7 not in classes
        assert (support // 10).tolist() == [classes[y] for y in episode.support.y[t]]
        assert (query // 10).tolist() == [classes[y] for y in episode.query.y[t]]


def test_pure_and_apart_by_purpose() -> None:
    tasks = LabelledTasks(IMAGES, 3, way=3, shot=1, query=1)
    assert torch.equal(tasks.episode(5, "test/3w1s").query.x, tasks.episode(5, "test/3w1s").query.x)
    assert not torch.equal(tasks.episode(5, "val/3w1s").query.x, tasks.episode(5, "test/3w1s").query.x)


def test_too_few_classes_or_images() -> None:
    with pytest.raises(
        DataError, match="way 8 with shot 1 and query 5 needs 8 classes of 6 images, the split has 7 of its 8 classes; lower way, shot or query"
    ):
        LabelledTasks(IMAGES, 0, way=8)
    with pytest.raises(DataError, match="the split has 0 of its 8 classes"):
        LabelledTasks(IMAGES, 0, way=2, shot=5, query=5)
