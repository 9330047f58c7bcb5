"""Which steps an order differentiates."""

from __future__ import annotations

from metaflowkit.orders import Exact


def test_every_step_is_differentiated() -> None:
    assert all(Exact().differentiates(step, 4) for step in range(4))
