"""Every schedule over whole runs, short ones too: what it multiplies a learning rate with is a share of it, at every step, and the same when asked again."""

from __future__ import annotations

import math

import pytest

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import SCHEDULES

CASES = [*((name, {}) for name in sorted(SCHEDULES.entries())), ("cosine", {"warmup": 0.3}), ("cosine", {"warmup": 1.0})]


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_step_of_a_run_has_a_factor(name, settings, steps) -> None:
    schedule = SCHEDULES.build(Choice(name, settings), steps=steps)
    factors = [schedule(step) for step in range(1, steps + 1)]
    assert all(isinstance(factor, float) and math.isfinite(factor) for factor in factors)
    assert all(0 < factor <= 1 for factor in factors)  # with 0 a step would be taken in vain
    assert [schedule(step) for step in range(steps, 0, -1)] == factors[::-1]  # a resumed run begins in the middle
