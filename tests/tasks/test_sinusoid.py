"""Sinusoids against their definition: points lie on one of them, amplitudes and phases are uniform, streams are apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metaflowkit.tasks.sinusoid import Sinusoid
from metaflowkit.types import Labelled, Outputs


def test_points_lie_on_one_sinusoid_each_with_amplitude_and_phase_in_range() -> None:
    episode = Sinusoid(0, shot=5, query=20, meta_batch=400).episode(1)
    x, y = (torch.cat([a, b], 1)[..., 0].double().numpy() for a, b in zip(episode.support, episode.query))
    assert (x.shape, episode.support.x.shape) == ((400, 25), (400, 5, 1))
    assert np.abs(x).max() <= 5
    amplitudes, phases = [], []
    for points, values in zip(x, y):  # y = a cos(b) sin(x) - a sin(b) cos(x) is linear in its two coefficients
        basis = np.stack([np.sin(points), -np.cos(points)], 1)
        (c, s), *_ = np.linalg.lstsq(basis, values, rcond=None)
        np.testing.assert_allclose(basis @ [c, s], values, atol=1e-4)
        amplitudes.append(math.hypot(c, s))
        phases.append(math.atan2(s, c))
    for values, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, math.pi)):
        assert low - 1e-3 <= min(values) < max(values) <= high + 1e-3
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * 400))


def test_pure_in_seed_and_step_and_streams_apart() -> None:
    tasks = Sinusoid(0)
    first = tasks.episode(3).support.x
    assert torch.equal(first, Sinusoid(0).episode(3).support.x)
    others = [Sinusoid(1).episode(3), tasks.episode(4), tasks.held_out("val", 3, 25, 10), tasks.held_out("test", 3, 25, 10)]
    assert not any(torch.equal(first, other.support.x) for other in others)
    assert tasks.held_out("test", 0, 7, 4).support.x.shape == (7, 4, 1)
    assert torch.equal(Sinusoid(1).held_out("test", 0, 7, 4).support.x, tasks.held_out("test", 0, 7, 4).support.x)  # whatever the run's seed
    assert not torch.equal(Sinusoid(0, 1).held_out("test", 0, 7, 4).support.x, tasks.held_out("test", 0, 7, 4).support.x)


def test_the_error_is_the_mean_square() -> None:
    task = tasks_query()
    error = Sinusoid(0).measure(lambda x: Outputs(x, torch.zeros_like(x)), task)
    assert error.item() == pytest.approx(task.query.y.square().mean().item())


def tasks_query():
    episode = Sinusoid(0).held_out("test", 0, 1, 5)
    return episode._replace(query=Labelled(episode.query.x[0], episode.query.y[0]))
