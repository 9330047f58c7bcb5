"""Schedules against their formula and torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import SCHEDULES


def factor(name: str, step: int, steps: int, **settings: float) -> float:
    return SCHEDULES.build(Choice(name, settings), steps=steps)(step)


@pytest.mark.parametrize(
    ("name", "step", "steps", "expected"),
    [
        ("cosine", 1, 4, 1.0),
        ("cosine", 2, 4, (1 + math.sqrt(0.5)) / 2),
        ("cosine", 3, 4, 0.5),
        ("cosine", 4, 4, (1 - math.sqrt(0.5)) / 2),
        ("cosine", 1, 1, 1.0),
        ("constant", 1, 4, 1.0),
        ("constant", 4, 4, 1.0),
    ],
)
def test_values(name, step, steps, expected) -> None:
    assert factor(name, step, steps) == pytest.approx(expected, rel=1e-14)


def test_every_schedule_is_covered() -> None:
    assert set(SCHEDULES.entries()) == {"constant", "cosine"}


def test_cosine_equals_torch_and_falls_without_reaching_zero() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    factors = [factor("cosine", step, 30) for step in range(1, 31)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0
    for expected in factors:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_a_warmup_rises_to_one_and_the_cosine_follows() -> None:
    factors = [factor("cosine", step, 20, warmup=0.2) for step in range(1, 21)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:] == pytest.approx([factor("cosine", step, 16) for step in range(1, 17)])
    assert factor("cosine", 3, 3, warmup=1.0) == 0.75
