"""Recorded meta-gradients; a trace of torch's operations, which runs no Python again either, takes the place of a CUDA graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from metaflowkit.engines import vectorized
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.recording import KEPT, Recordings, Unrecorded
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from metaflowkit.types import tree_map
from tests.oracles import make_episode, make_learner, relative


class Traced:
    """A recorder; counts its recordings."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, computation, inputs):
        self.count += 1
        form = {}

        def flat(*leaves):
            remaining = iter(leaves)
            form["out"] = computation(*tree_map(lambda _: next(remaining), inputs))
            return _leaves(form["out"])

        graph = make_fx(flat)(*_leaves(inputs))
        return lambda *given: _filled(form["out"], graph(*_leaves(given)))


def _leaves(tree):
    leaves = []
    tree_map(leaves.append, tree)
    return leaves


def _filled(form, leaves):
    remaining = iter(leaves)
    return tree_map(lambda _: next(remaining), form)


@pytest.fixture
def traced(monkeypatch) -> Traced:
    recorder = Traced()
    monkeypatch.setattr(vectorized, "_recorded_on", lambda device: True)
    monkeypatch.setattr(vectorized, "Recordings", lambda: Recordings(recorder))
    return recorder


def train(learner: MetaLearner, episodes) -> list:
    """Outcomes of outer steps of gradient descent."""
    outcomes = []
    for episode in episodes:
        outcomes.append(learner.outcome(episode))
        with torch.no_grad():
            for name, p in learner.model.named_parameters():
                p -= 0.1 * outcomes[-1].gradients[name]
    return outcomes


def learner_with(objective) -> MetaLearner:
    """A small learner in float64."""
    return make_learner(SGD(), Contrastive(), objective, Prototype())


def test_a_recording_gives_what_the_engine_gives_while_the_parameters_move(traced) -> None:
    episodes = [make_episode(tasks=4, seed=seed) for seed in range(3)]
    results = []
    for graph in (False, True):
        torch.manual_seed(0)
        learner = learner_with(BootstrappedKL(2))
        results.append(train(replace(learner, engine=VectorizedEngine(graph=graph)), episodes))
    assert traced.count == 1
    for plain, recorded in zip(*results):
        assert relative(recorded.gradients, plain.gradients) < 1e-12
        assert torch.allclose(recorded.value, plain.value, rtol=1e-12)
        assert recorded.metrics.keys() == plain.metrics.keys()
    assert not torch.allclose(results[1][1].value, results[1][2].value)


@pytest.mark.slow
def test_other_shapes_and_objectives_have_recordings_of_their_own(traced) -> None:
    learner = replace(learner_with(QueryLoss()), engine=VectorizedEngine(graph=True))
    for tasks in (4, 2, 4, 2, 4, 2):
        episode = make_episode(tasks=tasks)
        outcome = learner.outcome(episode)
        assert relative(outcome.gradients, replace(learner, engine=VectorizedEngine()).outcome(episode).gradients) < 1e-12
    assert traced.count == 2
    for _ in range(2 * KEPT):  # objects that come once, as in a measurement beside the training, are never recorded
        replace(learner, objective=QueryLoss()).outcome(make_episode(tasks=4))
    assert traced.count == 2


def test_a_few_recordings_are_kept() -> None:
    recorded = []
    recordings = Recordings(lambda computation, inputs: recorded.append(1) or computation)
    for key in range(KEPT + 1):
        for _ in range(3):
            recordings(torch.square, (torch.ones(2),), key, None)
    assert len(recorded) == KEPT + 1
    recordings(torch.square, (torch.ones(2),), 1, None)
    assert len(recorded) == KEPT + 1
    for _ in range(2):
        recordings(torch.square, (torch.ones(2),), 0, None)  # was dropped as the oldest
    assert len(recorded) == KEPT + 2


def test_what_differs_from_step_to_step_is_refused(traced) -> None:
    objective = BootstrappedKL(1, last_delta=3, outer_steps=10)
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: the outer step, which the objective reads, differs from step to step, .*; set graph: false$"):
        replace(learner_with(objective), engine=VectorizedEngine(graph=True)).outcome(make_episode(tasks=2))
    learner = replace(learner_with(QueryLoss()), engine=VectorizedEngine(graph=True))
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: examples are drawn in every inner step"):
        replace(learner, sample=lambda call, batch, draw: batch).outcome(make_episode(tasks=2))
    learner.model.backbone = nn.Sequential(learner.model.backbone, nn.Dropout(0.5))
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: random numbers are drawn in every call of the network"):
        learner.outcome(make_episode(tasks=2))
    learner.model.backbone[1].p = 0.0
    handle = learner.model.backbone.register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: hooks of its modules run in every call of the network"):
        learner.outcome(make_episode(tasks=2))
    handle.remove()
    with pytest.raises(ValueError, match=r"^graph records batches of tasks, got chunk 1; leave chunk out, or set graph: false$"):
        VectorizedEngine(chunk=1, graph=True)


def test_what_cannot_be_recorded_is_named() -> None:
    def failing(computation, inputs):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    recordings = Recordings(failing)
    recordings(torch.square, (torch.ones(1),), 0, None)
    with pytest.raises(
        ConfigError, match=r"^inner.engine.graph: the meta-gradient cannot be recorded \(CUDA error: operation not permitted when stream is capturing\); set"
    ):
        recordings(torch.square, (torch.ones(1),), 0, None)


@pytest.mark.parametrize("use", [int, float, bool, str, repr, lambda n: n + 1, lambda n: n == 1, lambda n: 2 * n, lambda n: f"{n}", lambda n: max(n - 1, 0)])
def test_every_use_of_a_number_that_is_not_recorded_raises(use) -> None:
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: the step differs from step to step"):
        use(Unrecorded("the step"))


def test_the_same_on_a_cpu_without_a_recorder() -> None:
    learner, episode = learner_with(BootstrappedKL(2)), make_episode(tasks=4)
    outcomes = [replace(learner, engine=VectorizedEngine(graph=graph)).outcome(episode) for graph in (False, True, True)]
    assert all(torch.equal(outcome.value, outcomes[0].value) for outcome in outcomes)
