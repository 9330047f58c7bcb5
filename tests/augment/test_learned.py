"""The learned warp: no strength is the identity, each strength does what its name says, and gradients reach all of them."""

from __future__ import annotations

import math

import pytest
import torch

from metaflowkit.augment.learned import LearnedAffine

SHAPE = (1, 15, 15)


def warped(x: torch.Tensor, seed: int = 0, **strengths: float) -> torch.Tensor:
    """Copies under the given strengths alone."""
    module = LearnedAffine(SHAPE, copies=40, **{"degrees": 1e-9, "translate": 1e-9, "scale": 1e-9, "shear": 1e-9, **strengths})
    torch.manual_seed(seed)
    return module(x, torch.zeros(len(x), dtype=torch.int64))[0].detach()


def bar() -> torch.Tensor:
    """A horizontal bar through the centre."""
    x = torch.zeros(1, *SHAPE)
    x[..., 7, 3:12] = 1
    return x


def test_without_strength_images_stay_and_labels_follow_their_copies() -> None:
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    views, y = LearnedAffine(SHAPE, copies=2, degrees=1e-9, translate=1e-9, scale=1e-9, shear=1e-9)(x, torch.tensor([5, 6, 7]))
    torch.testing.assert_close(views, x.repeat(2, 1, 1, 1), atol=1e-5, rtol=0)
    assert y.tolist() == [5, 6, 7, 5, 6, 7]


def moments(views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre [n, 2] and covariance [n, 2, 2] of the ink, in pixels (x, y)."""
    axis = torch.arange(15.0)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    ink = views[:, 0] / views[:, 0].sum((1, 2), keepdim=True)
    centre = torch.stack([(ink * columns).sum((1, 2)), (ink * rows).sum((1, 2))], 1)
    away = torch.stack([columns - centre[:, 0, None, None], rows - centre[:, 1, None, None]], 1)
    return centre, torch.einsum("nhw,nihw,njhw->nij", ink, away, away)


def test_rotation_turns_by_at_most_its_degrees_about_the_centre() -> None:
    centre, spread = moments(warped(bar(), degrees=30.0))
    torch.testing.assert_close(centre, torch.full_like(centre, 7.0), atol=0.02, rtol=0)
    angle = torch.rad2deg(0.5 * torch.atan2(2 * spread[:, 0, 1], spread[:, 0, 0] - spread[:, 1, 1]))
    assert 25 < angle.abs().max() < 31
    assert (angle > 0).any()
    assert (angle < 0).any()


def test_shift_is_a_share_of_the_side() -> None:
    centre, _ = moments(warped(bar(), translate=0.2))
    assert 2.2 < (centre - 7).abs().max() <= 3.01


def test_scale_is_a_logarithm() -> None:
    _, spread = moments(warped(bar(), scale=0.2))
    _, before = moments(bar())
    ratio = (spread[:, 0, 0] / before[0, 0, 0]).sqrt()
    assert ratio.max() == pytest.approx(math.exp(0.2), abs=0.03)
    assert ratio.min() == pytest.approx(math.exp(-0.2), abs=0.03)


def test_gradients_equal_finite_differences_in_every_strength() -> None:
    module = LearnedAffine(SHAPE, copies=3).double()
    x = torch.nn.functional.avg_pool2d(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 5, 1, 2)
    weights = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def value() -> torch.Tensor:
        torch.manual_seed(3)
        return (weights * module(x, torch.zeros(2, dtype=torch.int64))[0]).sum()

    gradients = torch.autograd.grad(value(), list(module.parameters()))
    for parameter, gradient in zip(module.parameters(), gradients):
        with torch.no_grad():
            parameter += 1e-6
            above = value()
            parameter -= 2e-6
            below = value()
            parameter += 1e-6
        assert gradient.item() == pytest.approx(((above - below) / 2e-6).item(), rel=2e-3)
        assert gradient != 0


def test_other_examples_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"affine warps images \[C, H, W\], got examples of shape \(4,\)"):
        LearnedAffine((4,))
