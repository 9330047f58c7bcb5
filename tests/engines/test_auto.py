"""The automatic choice says what it chose and why."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from metaflowkit.engines.auto import MANY, auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.inner_loop import InnerLoop
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.backbones.mlp import MLP
from metaflowkit.models.heads.linear import Linear
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Exact, First
from metaflowkit.rules.sgd import SGD
from tests.oracles import make_episode, make_learner, relative


@pytest.mark.parametrize(
    ("layer", "cuda", "chunk", "says"),
    [
        (nn.Conv2d(2, 2, 3), False, 1, "vectorized, task by task (on a CPU a task per core fills it"),
        (nn.Linear(2, 2), False, 16, "vectorized, 16 tasks at a time (on a CPU the small matrix products of several tasks are fewer, larger ones)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), False, 1, "vectorized, task by task"),
        (nn.Linear(2, 2), True, None, "vectorized, all tasks at once (on a GPU batching over tasks saves kernel launches)"),
        (nn.GRU(2, 2), False, 1, "vectorized, task by task (on a CPU a task per core fills it, and recurrent steps computed again"),
        (nn.GRU(2, 2), True, 1, "vectorized, task by task (0 (GRU): torch's recurrent layers cannot be batched over tasks)"),
        (nn.BatchNorm2d(2), True, 1, "vectorized, task by task (0 (BatchNorm2d): running statistics cannot be updated inside vmap)"),
        (nn.BatchNorm2d(2, track_running_stats=False), True, None, "vectorized, all tasks at once"),
    ],
    ids=["cpu", "fully connected", "dropout", "gpu", "recurrent on cpu", "recurrent", "running statistics", "current statistics"],
)
def test_choice_and_reason(layer, cuda, chunk, says, monkeypatch) -> None:
    model = nn.Sequential(layer)
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(is_cuda=cuda)]))
    engine = auto(model)
    assert engine.many.chunk == chunk
    assert engine.few.chunk == (1 if chunk == 16 else chunk)
    assert engine.description.startswith(says)


class Rows(nn.Module):
    """Rows of an image through a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.features = nn.GRU(8, 4, batch_first=True), 4

    def forward(self, x):
        return self.gru(x.squeeze(1))[1][0]


def _parts(backbone: nn.Module):
    return make_learner(SGD(lr=0.3), CrossEntropy(), QueryLoss(), Linear(backbone.features, 3), backbone)


@pytest.mark.parametrize(("tasks", "batched"), [(MANY - 1, False), (MANY, True)])
def test_few_tasks_are_not_batched(tasks, batched, monkeypatch) -> None:
    learner, episode = _parts(MLP((1, 8, 8), [3])), make_episode(tasks=tasks)
    used = []
    run = VectorizedEngine._results
    monkeypatch.setattr(VectorizedEngine, "_results", lambda self, *rest, **named: used.append(self.batches) or run(self, *rest, **named))
    engine = auto(learner.model)
    result = engine.outcome(learner, episode)
    engine.adapt(learner, episode.support, episode)
    assert used == [batched, batched]
    assert relative(result.gradients, HigherEngine().outcome(learner, episode).gradients) < 1e-12


@pytest.mark.parametrize(("tasks", "order", "again"), [(2, Exact(), True), (1, Exact(), False), (2, First(), False)])
def test_recurrent_steps_are_computed_again_side_by_side(tasks, order, again, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    learner, episode = dataclasses.replace(_parts(Rows()), order=order), make_episode(tasks=tasks)
    used = []
    back = InnerLoop._rematerialised
    monkeypatch.setattr(InnerLoop, "_rematerialised", lambda *args: used.append(1) or back(*args))
    result = auto(learner.model).outcome(learner, episode).gradients
    assert bool(used) == again
    reference = VectorizedEngine(1, 2).outcome(learner, episode).gradients
    assert all(torch.equal(g, reference[name]) for name, g in result.items())
