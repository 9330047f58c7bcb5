"""Which steps an order differentiates."""

from __future__ import annotations

from metaflowkit.orders import First


def test_no_step_is_differentiated() -> None:
    assert not any(First().differentiates(step, 4) for step in range(4))
