"""Which steps an order differentiates."""

from __future__ import annotations

import pytest

from metaflowkit.orders import Truncate


@pytest.mark.parametrize(("last", "kept"), [(1, [False] * 3 + [True]), (3, [False] + [True] * 3), (4, [True] * 4), (9, [True] * 4)])
def test_the_last_steps_are_differentiated(last, kept) -> None:
    assert [Truncate(last).differentiates(step, 4) for step in range(4)] == kept
