"""Which steps an order differentiates."""

from __future__ import annotations

import pytest

from metaflowkit.orders import Exact, First, Truncate


@pytest.mark.parametrize(
    ("order", "kept"), [(Exact(), [True] * 4), (First(), [False] * 4), (Truncate(1), [False] * 3 + [True]), (Truncate(3), [False] + [True] * 3)]
)
def test_steps_that_are_kept(order, kept) -> None:
    assert [order.keeps(step, 4) for step in range(4)] == kept
