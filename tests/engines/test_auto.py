"""The automatic choice says what it chose and why."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from metaflowkit.engines.auto import auto


@pytest.mark.parametrize(
    ("layer", "cuda", "chunk", "says"),
    [
        (nn.Conv2d(2, 2, 3), False, 1, "vectorized, task by task (on a CPU a task per core fills it"),
        (nn.Linear(2, 2), False, 16, "vectorized, 16 tasks at a time (on a CPU the small matrix products of several tasks are fewer, larger ones)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), False, 1, "vectorized, task by task"),
        (nn.Linear(2, 2), True, None, "vectorized, all tasks at once (on a GPU batching over tasks saves kernel launches)"),
        (nn.GRU(2, 2), True, 1, "vectorized, task by task (0 (GRU): torch's recurrent layers cannot be batched over tasks)"),
        (nn.BatchNorm2d(2), True, 1, "vectorized, task by task (0 (BatchNorm2d): running statistics cannot be updated inside vmap)"),
        (nn.BatchNorm2d(2, track_running_stats=False), True, None, "vectorized, all tasks at once"),
    ],
    ids=["cpu", "fully connected", "dropout", "gpu", "recurrent", "running statistics", "current statistics"],
)
def test_choice_and_reason(layer, cuda, chunk, says, monkeypatch) -> None:
    model = nn.Sequential(layer)
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(is_cuda=cuda)]))
    engine = auto(model)
    assert engine.chunk == chunk
    assert engine.description.startswith(says)
