"""Recorded meta-gradients. In fast tests the traced operations are not compiled, and no CUDA graph is recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from metaflowkit.engines import recorders
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.recording import KEPT, Recordings, Unrecorded
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from metaflowkit.trees import tree_map
from metaflowkit.types import Episode
from tests.oracles import Smooth, make_episode, make_learner, relative


@pytest.fixture
def traced(monkeypatch) -> list:
    """Traces that were taken; they are run as they are, not compiled."""
    graphs = []
    monkeypatch.setattr(recorders, "_inductor", lambda graph, inputs: graphs.append(graph) or graph)
    return graphs


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


@pytest.mark.parametrize("chunk", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_a_recording_gives_what_the_engine_gives_while_the_parameters_move(chunk, traced) -> None:
    episodes = [make_episode(tasks=4, seed=seed) for seed in range(3)]
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        learner = learner_with(BootstrappedKL(1))
        results.append(train(replace(learner, engine=VectorizedEngine(chunk, compile=compiled)), episodes))
    assert len(traced) == 1
    for plain, recorded in zip(*results):
        assert relative(recorded.gradients, plain.gradients) < 1e-12
        assert torch.allclose(recorded.value, plain.value, rtol=1e-12)
        assert recorded.metrics.keys() == plain.metrics.keys()
    assert not torch.allclose(results[1][1].value, results[1][2].value)
    assert not [node for node in traced[0].graph.nodes if node.op == "get_attr"]  # a compiler takes the values of small constants into its code


def test_a_recording_of_pooled_normalisation_serves_all_signs_of_its_scale(traced) -> None:
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        learner = make_learner(SGD(), CrossEntropy(), QueryLoss(), Linear(4, 3), Conv4((1, 16, 16), 4), steps=1)
        engine, outcomes = VectorizedEngine(1, compile=compiled), []
        for seed in range(3):
            outcomes.append(replace(learner, engine=engine).outcome(make_episode(tasks=2, shape=(1, 16, 16), seed=seed)))
            with torch.no_grad():
                for block in learner.model.backbone.blocks:
                    block.norm.weight[0] *= -1
        results.append(outcomes)
    assert len(traced) == 1
    for plain, recorded in zip(*results):
        assert relative(recorded.gradients, plain.gradients) < 1e-12


def one_layer() -> nn.Module:
    """Few operations, which are compiled in seconds; its bias is as small as a constant that a compiler would take into its code."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh())
    backbone.features = 3
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "chunk"), [(one_layer, None), (one_layer, 1), (Smooth, None), (Smooth, 1)])
def test_what_is_compiled_gives_what_the_engine_gives_while_the_parameters_move(backbone, chunk) -> None:
    right, errors = None, []
    for dtype, compiled in ((torch.float64, False), (torch.float64, True), (torch.float32, False), (torch.float32, True)):
        torch.manual_seed(0)
        learner = make_learner(SGD(), CrossEntropy(), QueryLoss(), Linear(backbone().features, 3), backbone(), steps=1)
        learner.model.to(dtype)
        sets = [tree_map(lambda x, dtype=dtype: x.to(dtype) if x.is_floating_point() else x, make_episode(tasks=4, seed=seed)[:2]) for seed in range(3)]
        outcomes = train(replace(learner, engine=VectorizedEngine(chunk, compile=compiled)), [Episode(*pair, 3) for pair in sets])
        gradients = [{name: g.double() for name, g in outcome.gradients.items()} for outcome in outcomes]
        right = right or gradients
        errors.append(max(map(relative, gradients, right)))
    assert errors[1] < 1e-12
    assert errors[3] < max(10 * errors[2], 1e-6) < 1e-5


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_named(monkeypatch) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    cpp_builder.cpp_compiler_search.cache_clear()
    learner = make_learner(SGD(), CrossEntropy(), QueryLoss(), Linear(3, 3), one_layer(), steps=1, engine=VectorizedEngine(compile=True))
    episode = make_episode(tasks=2)
    learner.outcome(episode)
    with pytest.raises(ConfigError, match=r"^inner.engine.compile: the meta-gradient cannot be recorded \(.*compiler"):
        learner.outcome(episode)


@pytest.mark.slow
def test_other_shapes_and_objectives_have_recordings_of_their_own(traced) -> None:
    learner = replace(learner_with(QueryLoss()), engine=VectorizedEngine(compile=True))
    for tasks in (4, 2, 4, 2, 4, 2):
        episode = make_episode(tasks=tasks)
        outcome = learner.outcome(episode)
        assert relative(outcome.gradients, replace(learner, engine=VectorizedEngine()).outcome(episode).gradients) < 1e-12
    assert len(traced) == 2
    for _ in range(2 * KEPT):  # objects that come once, as in a measurement beside the training, are never recorded
        replace(learner, objective=QueryLoss()).outcome(make_episode(tasks=4))
    assert len(traced) == 2


def test_a_few_recordings_are_kept() -> None:
    recorded = []
    recordings = Recordings(lambda computation, inputs: recorded.append(1) or computation, "graph")
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
    with pytest.raises(
        ConfigError, match=r"^inner.engine.compile: the outer step, which the objective reads, differs from step to step, .*; set compile: false$"
    ):
        replace(learner_with(objective), engine=VectorizedEngine(compile=True)).outcome(make_episode(tasks=2))
    learner = replace(learner_with(QueryLoss()), engine=VectorizedEngine(compile=True))
    with pytest.raises(ConfigError, match=r"^inner.engine.compile: examples are drawn in every inner step"):
        replace(learner, sample=lambda call, batch, draw: batch).outcome(make_episode(tasks=2))
    learner.model.backbone = nn.Sequential(learner.model.backbone, nn.Dropout(0.5))
    with pytest.raises(ConfigError, match=r"^inner.engine.compile: random numbers are drawn in every call of the network"):
        learner.outcome(make_episode(tasks=2))
    learner.model.backbone[1].p = 0.0
    handle = learner.model.backbone.register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match=r"^inner.engine.compile: hooks of its modules run in every call of the network"):
        learner.outcome(make_episode(tasks=2))
    handle.remove()
    with pytest.raises(ValueError, match=r"^graph records batches of tasks, got chunk 1; leave chunk out, or set graph: false$"):
        VectorizedEngine(chunk=1, graph=True)


def test_what_cannot_be_recorded_is_named() -> None:
    def failing(computation, inputs):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    recordings = Recordings(failing, "graph")
    recordings(torch.square, (torch.ones(1),), 0, None)
    with pytest.raises(
        ConfigError, match=r"^inner.engine.graph: the meta-gradient cannot be recorded \(CUDA error: operation not permitted when stream is capturing\); set"
    ):
        recordings(torch.square, (torch.ones(1),), 0, None)


@pytest.mark.parametrize("use", [int, float, bool, str, repr, lambda n: n + 1, lambda n: n == 1, lambda n: 2 * n, lambda n: f"{n}", lambda n: max(n - 1, 0)])
def test_every_use_of_a_number_that_is_not_recorded_raises(use) -> None:
    with pytest.raises(ConfigError, match=r"^inner.engine.graph: the step differs from step to step"):
        use(Unrecorded("the step", "graph"))


def test_the_same_on_a_cpu_without_a_recorder() -> None:
    learner, episode = learner_with(BootstrappedKL(2)), make_episode(tasks=4)
    outcomes = [replace(learner, engine=VectorizedEngine(graph=graph)).outcome(episode) for graph in (False, True, True)]
    assert all(torch.equal(outcome.value, outcomes[0].value) for outcome in outcomes)
