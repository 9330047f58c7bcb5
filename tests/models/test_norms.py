"""Normalisation layers against mean and variance written out."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.norms import build_norm

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
