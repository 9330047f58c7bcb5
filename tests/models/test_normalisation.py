"""Normalisation layers against mean and variance written out."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.normalisation import StoredNorm, after_steps, build_norm, current_statistics, measured

X = torch.randn(5, 6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1


def standardised(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(axes, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("training", [True, False])
def test_batch_uses_the_current_set_in_training_and_evaluation(training) -> None:
    norm = build_norm("batch", 6).double().train(training)
    torch.testing.assert_close(norm(X), standardised(X, (0, 2, 3)), rtol=1e-10, atol=1e-10)
    assert list(norm.buffers()) == []


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (6, 2), (8, 8), (12, 4), (64, 8)])
def test_group_treats_each_image_alone(channels, groups) -> None:
    norm = build_norm("group", channels).double()
    x = torch.randn(3, channels, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = standardised(x.reshape(3, groups, -1), (2,)).reshape(x.shape)
    torch.testing.assert_close(norm(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(norm(x[1:2]), norm(x)[1:2], rtol=1e-12, atol=1e-12)


def filled(frozen: bool) -> StoredNorm:
    norm = StoredNorm(6, frozen).double()
    norm.set_steps(2)
    norm.records = []
    for steps in (0, 1, 2, 0, 1, 2):
        with after_steps(steps):
            torch.testing.assert_close(norm(X + steps), standardised(X, (0, 2, 3)), rtol=1e-10, atol=1e-10)
    norm.store_records()
    return norm.double()


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_per_step_uses_the_current_set_in_training_and_its_steps_statistics_when_measured(steps) -> None:
    norm = filled(frozen=False)
    assert norm.means.shape == (3, 6)
    with after_steps(steps):
        torch.testing.assert_close(norm(X), standardised(X, (0, 2, 3)), rtol=1e-10, atol=1e-10)
        with measured():
            shifted = norm(X + min(steps, 2))
            torch.testing.assert_close(shifted, standardised(X, (0, 2, 3)), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(norm(X[:1] + min(steps, 2)), shifted[:1])  # no other image counts
    assert norm(X).mean().abs() < 1e-6


def test_current_statistics_count_when_measured_within_their_context_and_not_for_frozen_layers() -> None:
    model = torch.nn.Sequential(filled(frozen=False), filled(frozen=True))
    with measured():
        stored = model[0](X)
        with current_statistics(model):
            assert model[0].takes_current
            torch.testing.assert_close(model[0](2 * X), standardised(2 * X, (0, 2, 3)), rtol=1e-5, atol=1e-5)
            assert not model[1].takes_current
        assert torch.equal(model[0](X), stored)
    for other in (filled(frozen=True), build_norm("batch", 6), build_norm("group", 6)):
        with pytest.raises(ValueError, match="stores no statistics beside those of the current set; choose stored"), current_statistics(other):
            pass


def test_frozen_uses_one_set_of_statistics_throughout() -> None:
    norm = filled(frozen=True)
    steps = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    mean, variance = X.mean((0, 2, 3)) + steps.mean(), X.var((0, 2, 3), correction=0) + steps.var(correction=0)
    expected = (X - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    for number in (0, 2):
        with after_steps(number):
            torch.testing.assert_close(norm(X), expected, rtol=1e-5, atol=1e-5)
            with measured():
                torch.testing.assert_close(norm(X), expected, rtol=1e-5, atol=1e-5)


def test_statistics_that_were_never_taken_show() -> None:
    assert build_norm("frozen", 6).double()(X).isnan().all()
