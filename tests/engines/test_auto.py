"""The automatic choice says what it chose and why."""

from __future__ import annotations

from torch import nn

from metaflowkit.engines.auto import auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine


def test_buffers_go_to_higher_and_a_cpu_goes_task_by_task() -> None:
    kept = auto(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    assert isinstance(kept, HigherEngine)
    assert kept.description == "higher, task by task (the model keeps buffers, which vmap cannot update)"
    plain = auto(nn.Linear(2, 2))
    assert isinstance(plain, VectorizedEngine)
    assert plain.chunk == 1
    assert "on a CPU" in plain.description
