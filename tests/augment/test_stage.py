"""The stage against itself: the same name of a draw gives the same images, another one others, and nothing else moves."""

from __future__ import annotations

import kornia.augmentation as K
import pytest
import torch

from metaflowkit.augment.stage import Stage
from metaflowkit.config.choice import Choice
from metaflowkit.errors import ConfigError
from metaflowkit.seeding import seed_for

AFFINE = Choice("RandomAffine", {"degrees": 20.0, "p": 1.0})
SHAPE = (1, 16, 16)
X = torch.rand(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
LIKE = X[0, :2]


def test_repeatable_by_name_and_different_otherwise() -> None:
    stage = Stage([AFFINE], 0, LIKE)
    drawn = stage(X, "support", "train", 1)
    assert torch.equal(drawn, Stage([AFFINE], 0, LIKE)(X, "support", "train", 1))
    others = [
        stage(X, "query", "train", 1),
        stage(X, "support", "val", 1),
        stage(X, "support", "train", 2),
        Stage([AFFINE], 1, LIKE)(X, "support", "train", 1),
    ]
    assert not any(torch.equal(drawn, other) for other in others)


def test_isolated_from_the_global_generator_and_the_other_way_round() -> None:
    stage = Stage([AFFINE], 0, LIKE)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = stage(X, "support", "train", 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(stage(X, "support", "train", 1), first)


def test_an_operation_removed_leaves_the_draws_of_those_before_it() -> None:
    erasing = Choice("RandomErasing", {"apply_to": "query", "p": 1.0})
    assert torch.equal(Stage([AFFINE, erasing], 0, LIKE)(X, "support", "train", 1), Stage([AFFINE], 0, LIKE)(X, "support", "train", 1))


@pytest.mark.parametrize(("apply_to", "changed"), [("support", {"support"}), ("query", {"query"}), ("both", {"support", "query"})])
def test_applied_to_the_views_asked_for(apply_to, changed) -> None:
    stage = Stage([Choice("RandomAffine", {"degrees": 20.0, "p": 1.0, "apply_to": apply_to})], 0, LIKE)
    assert {role for role in ("support", "query") if not torch.equal(stage(X, role, "train", 1), X)} == changed


def test_every_image_gets_its_own_draw_and_stays_in_range() -> None:
    same = X[:1, :1].expand(2, 3, *SHAPE)
    out = Stage([AFFINE, Choice("RandomBrightness", {"brightness": [0.5, 1.9], "p": 1.0})], 0, LIKE)(same, "support", "train", 1)
    assert out.shape == X.shape
    assert len({image.numpy().tobytes() for image in out.flatten(0, 1)}) == 6
    assert out.min() >= 0
    assert out.max() <= 1


def test_no_operations_leave_images_alone() -> None:
    assert torch.equal(Stage([], 0, LIKE)(X, "support", "train", 1), X)


def test_all_operations_at_fault_are_named() -> None:
    wrong = [Choice("RandomAffine", {"degrees": "far"}), AFFINE, Choice("RandomCrop", {"size": [8, 8]})]
    with pytest.raises(ConfigError) as caught:
        Stage(wrong, 0, LIKE)
    first, second = caught.value.problems
    assert first.startswith("augment.0: RandomAffine does not work on examples of shape (1, 16, 16)")
    assert second.startswith("augment.2: RandomCrop does not work")
    assert "must keep their shape" in second


def test_an_operation_that_takes_tensors_is_given_the_list_as_one() -> None:
    """Oracle: Kornia's own call with tensors."""
    ranges = {"center_x": [-0.3, 0.3], "center_y": [-0.3, 0.3], "gamma": [0.9, 1.1]}
    stage = Stage([Choice("RandomFisheye", {**ranges, "p": 1.0})], 0, LIKE)
    direct = K.RandomFisheye(**{key: torch.tensor(value) for key, value in ranges.items()}, p=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(0, "augment/train/support/0", 1))
        expected = direct(X.flatten(0, 1))
    torch.testing.assert_close(stage(X, "support", "train", 1), expected.clamp(0, 1).reshape(X.shape))


def test_images_keep_their_size_where_an_operation_asks_for_one() -> None:
    x = torch.rand(4, 3, 12, 20)
    crop = {"scale": [0.2, 0.5], "p": 1.0}
    stage = Stage([Choice("RandomResizedCrop", crop)], 0, x[:2])
    listed = Stage([Choice("RandomResizedCrop", {"size": [12, 20], **crop})], 0, x[:2])
    assert stage(x, "support", "train", 1).shape == x.shape
    assert torch.equal(stage(x, "support", "train", 1), listed(x, "support", "train", 1))
    assert not torch.equal(stage(x, "support", "train", 1), x)
    with pytest.raises(ConfigError, match="RandomResizedCrop does not work on examples of shape"):
        Stage([Choice("RandomResizedCrop", {"size": [6, 10], **crop})], 0, x[:2])
