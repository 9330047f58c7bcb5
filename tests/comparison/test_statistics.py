"""Intervals against simulated seeds and episodes, whose truth is known, and scores against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from metaflowkit.comparison.statistics import Estimate, first_reaching, interquartile_mean, mean_over, probability_of_improvement, seeds_needed


def sample(rng: np.random.Generator, seeds: int, mean: float = 0.0, between: float = 1.0, shared: float = 5.0, within: float = 5.0) -> np.ndarray:
    """Values [seeds, 100] with an effect of each seed, of each episode, and of both together."""
    return mean + between * rng.standard_normal((seeds, 1)) + shared * rng.standard_normal((1, 100)) + within * rng.standard_normal((seeds, 100))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_what_they_say(seeds, monkeypatch) -> None:
    monkeypatch.setattr("metaflowkit.comparison.statistics.RESAMPLES", 400)
    rng = np.random.default_rng(seeds)
    estimates = [mean_over(sample(rng, seeds, mean=2.0)) for _ in range(400)]
    covered = np.mean([estimate.low <= 2.0 <= estimate.high for estimate in estimates])
    assert 0.92 < covered < 0.995
    narrow = np.mean([abs(s.mean() - 2.0) < 1.96 * s.mean(1).std() / np.sqrt(seeds) for s in (sample(rng, seeds, mean=2.0) for _ in range(400))])
    assert narrow < covered - 0.02  # what a normal interval over seeds alone would hold


def test_one_seed_has_an_interval_over_episodes_alone() -> None:
    values = np.random.default_rng(0).standard_normal((1, 600)) + 1
    estimate = mean_over(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(600), rel=0.06)
    assert estimate.resolved


def test_nothing_is_resolved_where_all_is_equal() -> None:
    estimate = mean_over(np.zeros((3, 50)))
    assert estimate == Estimate(0.0, 0.0, 0.0)
    assert not estimate.resolved
    assert seeds_needed(np.zeros((3, 50))) is None


def test_the_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    values = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 100.0]])
    estimate = interquartile_mean(values)
    assert estimate.value == (2 + 3 + 4 + 5) / 4
    assert estimate.low < estimate.value < estimate.high


def test_the_probability_of_improvement_counts_pairs() -> None:
    x, y = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 4.0], [0.0, 6.0]])
    pairs = [(a > b) + 0.5 * (a == b) for m in range(2) for a, b in itertools.product(x[:, m], y[:, m])]
    estimate = probability_of_improvement(x, y)
    assert estimate.value == pytest.approx(np.mean(pairs))
    assert estimate.value == pytest.approx(np.mean([stats.mannwhitneyu(x[:, m], y[:, m]).statistic / 6 for m in range(2)]))
    assert probability_of_improvement(x, x).value == 0.5


def test_seeds_that_would_resolve_a_difference_do() -> None:
    rng = np.random.default_rng(1)
    pilot = sample(rng, 200, mean=1.0, shared=0.5)  # many seeds, so that its variances are the true ones
    needed = seeds_needed(pilot)
    assert needed is not None
    assert 6 < needed < 20
    resolved = np.mean([mean_over(sample(rng, 2 * needed, mean=1.0, shared=0.5)).resolved for _ in range(30)])
    assert resolved > 0.8
    few = np.mean([mean_over(sample(rng, 3, mean=1.0, shared=0.5)).resolved for _ in range(30)])
    assert few < 0.5
    episodes = 5 * rng.standard_normal(100)
    assert seeds_needed(np.tile(episodes - episodes.mean() + 0.3, (5, 1))) is None  # more episodes are needed, not more seeds


@pytest.mark.parametrize(("level", "higher", "step"), [(0.5, True, 20), (0.2, True, 0), (0.9, True, None), (0.25, False, 0), (0.1, False, None)])
def test_the_first_step_that_reaches_a_level(level, higher, step) -> None:
    assert first_reaching([0, 10, 20, 30], [0.2, 0.4, 0.6, 0.5], level, higher) == step
