"""Differences over seeds and episodes, with intervals that hold for few seeds.

Every run of a comparison is measured on the very same test episodes. Its values are a matrix [seeds, episodes]; both are a sample, of trainings
and of tasks, and both are resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]
RESAMPLES = 4000
MOST_SEEDS = 1000  # beyond it, another number of seeds is no plan


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high


def mean_over(values: Values) -> Estimate:
    """The mean with an interval by the bootstrap over seeds and over episodes (clustered by seed, crossed with episodes).

    Each resample draws seeds and episodes with replacement and moves the mean by both deviations; the interval is the central 95 % of what results. Few
    clusters make a bootstrap too narrow: for S seeds their deviation is widened by sqrt(S / (S - 1)) t_{0.975, S-1} / 1.96. One seed says
    nothing about others, and its interval is over episodes alone.

    Args:
        values: of each seed and episode, [S, E], such as differences of two pipelines on the same episodes.

    Reference:
        A. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007; A. Cameron, J. Gelbach, D. Miller, Bootstrap-Based
        Improvements for Inference with Clustered Errors, 2008, on few clusters.
    """
    seeds, episodes = values.shape
    mean = float(values.mean())
    rng = np.random.default_rng(0)
    means = _weights(rng, episodes) @ values.mean(0)
    if seeds > 1:
        widening = math.sqrt(seeds / (seeds - 1)) * float(stats.t.ppf(0.975, seeds - 1)) / 1.96
        means += widening * (_weights(rng, seeds) @ (values.mean(1) - mean))
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def interquartile_mean(values: Values) -> Estimate:
    """The mean of the middle half of all runs' values, with a bootstrap over seeds.

    Args:
        values: of each seed and setting, [S, M].

    Reference:
        R. Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021, section 4.3.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
    means = stats.trim_mean(values[drawn].reshape(RESAMPLES, -1), 0.25, axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(stats.trim_mean(values.ravel(), 0.25)), float(low), float(high))


def probability_of_improvement(values: Values, baseline: Values) -> Estimate:
    """How likely a run has a higher value than one of the baseline with another seed: mean over settings of P(X > Y) + P(X = Y) / 2.

    Args:
        values: of each seed and setting, [S, M].
        baseline: [S', M].

    Reference:
        R. Agarwal et al., NeurIPS 2021, section 4.3.
    """
    rng = np.random.default_rng(0)
    pairs = ((values[:, None] > baseline[None]) + 0.5 * (values[:, None] == baseline[None])).mean(2)  # [S, S']
    drawn = np.einsum("ri,ij,rj->r", _weights(rng, len(values)), pairs, _weights(rng, len(baseline)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(pairs.mean()), float(low), float(high))


def seeds_needed(differences: Values) -> int | None:
    """How many seeds would resolve a difference of this size; None where even a thousand would not.

    The least n with t_{0.975, n-1} sqrt(s^2 / n + v / E) < |d|, where d is the mean difference, s^2 the variance of the seeds' means less what
    the episodes add to it, and v the variance over episodes that all seeds share.

    Args:
        differences: of each seed and episode, [S, E], S at least 2.
    """
    mean = abs(float(differences.mean()))
    if mean == 0:
        return None
    episodes = differences.shape[1]
    between = float(differences.mean(1).var(ddof=1))
    shared = float(differences.mean(0).var(ddof=1)) / episodes
    n = np.arange(2, MOST_SEEDS + 1)
    resolving = n[stats.t.ppf(0.975, n - 1) * np.sqrt(between / n) + 1.96 * math.sqrt(shared) < mean]
    return int(resolving[0]) if len(resolving) else None


def first_reaching(steps: Sequence[int], values: Sequence[float], level: float, higher_is_better: bool) -> int | None:
    """The first step at which a validation is at least as good as a level; None where none is."""
    return next((step for step, value in zip(steps, values) if (value >= level if higher_is_better else value <= level)), None)


def _weights(rng: np.random.Generator, count: int) -> Values:
    """The weights of a resample of so many items, [RESAMPLES, count]."""
    weights: Values = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    return weights
