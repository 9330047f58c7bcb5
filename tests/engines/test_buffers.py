"""What a network writes to its buffers: one meaning in every engine, seen by later calls of the same task, dropped after it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.heads.linear import Linear
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.rules.sgd import SGD
from tests.oracles import finite_difference, make_episode, make_learner, relative, scores

ENGINES = {"one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "higher": HigherEngine()}
WAYS = {
    "exact": {"order": Exact()},
    "first": {"order": First()},
    "truncate": {"order": Truncate(1)},
    "reptile": {"order": Reptile()},
    "implicit": {"order": Implicit(), "proximal": 1.0},
    "remat": {"remat": True},
    "target": {"objective": BootstrappedKL(2)},
    "target, remat": {"objective": BootstrappedKL(2), "remat": True},
}


class Writer(nn.Module):
    """Features that depend on how often, and on what, the network was called."""

    features = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(64, 4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        h = self.first(x.flatten(1)).tanh()
        self.write(h)
        return h * (1 + 0.3 * self.count) + self.mean.sin()


class Rebinding(Writer):
    def write(self, h):
        self.count = self.count + 1
        self.mean = 0.5 * self.mean + h.mean(0)


class InPlace(Writer):
    def write(self, h):
        self.count += 1
        self.mean.mul_(0.5).add_(h.mean(0))


class Constant(Writer):
    """Written in place without a gradient, as batch normalisation does."""

    def write(self, h):
        self.count += 1
        with torch.no_grad():
            self.mean.mul_(0.5).add_(h.mean(0))


class Remembering(Writer):
    """A buffer that is there from the first call of a task on, one that comes and goes, and one that is made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", None)

    def write(self, h):
        self.count = self.count + 1 + (0 if self.last is None else self.last.sum()) + (1 if hasattr(self, "made") else 0)
        self.last = None if self.last is not None else h.mean(0).detach()
        if not hasattr(self, "made"):
            self.register_buffer("made", h.mean(0).detach())


NETWORKS = {network.__name__: network for network in (Rebinding, InPlace, Constant, Remembering)}


def parts_of(network, objective=None, steps=3, **more):
    torch.manual_seed(5)
    return make_learner(SGD(lr=0.3), CrossEntropy(), objective or QueryLoss(), Linear(4, 3), network(), steps, **more)


@pytest.mark.parametrize(("network", "way"), list(itertools.product(NETWORKS, WAYS)))
def test_the_engines_agree_task_by_task(network, way) -> None:
    learner, episode = parts_of(NETWORKS[network], **WAYS[way]), make_episode(tasks=3)
    before = {name: b.clone() for name, b in learner.model.named_buffers()}
    outcomes = [engine.outcome(learner, episode) for engine in ENGINES.values()]
    adapted = [engine.adapt(learner, episode.support, episode, query_scores) for engine in ENGINES.values()]
    for outcome, adaptation in zip(outcomes, adapted):
        assert relative(outcome.gradients, outcomes[0].gradients) < (1e-6 if way == "implicit" else 1e-9)
        torch.testing.assert_close(outcome.value, outcomes[0].value, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(adaptation.read, adapted[0].read, rtol=1e-10, atol=1e-12)
    after = dict(learner.model.named_buffers())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], b) for name, b in before.items())
    assert getattr(learner.model.backbone, "last", None) is None


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("engine", list(ENGINES))
def test_tasks_do_not_see_each_other_and_repeated_calls_give_the_same(network, engine) -> None:
    learner, episode = parts_of(NETWORKS[network]), make_episode(tasks=3)
    alone = [
        ENGINES[engine].outcome(learner, episode._replace(support=type(s)(s.x[t : t + 1], s.y[t : t + 1]), query=type(q)(q.x[t : t + 1], q.y[t : t + 1])))
        for s, q in [(episode.support, episode.query)]
        for t in (2, 0, 1)
    ]
    together = ENGINES[engine].outcome(learner, episode)
    torch.testing.assert_close(together.value, torch.stack([outcome.value for outcome in alone]).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_later_calls_see_what_earlier_ones_wrote(engine) -> None:
    """Three inner steps call the network three times, the query makes a fourth call."""
    counts = []

    class Counting(Rebinding):
        def write(self, h):
            super().write(h)
            counts.append(self.count.item())

    learner, episode = parts_of(Counting), make_episode(tasks=1)
    for call in (lambda: ENGINES[engine].outcome(learner, episode), lambda: scores(ENGINES[engine], learner, episode)):
        call()
        assert counts == [1, 2, 3, 4]
        counts.clear()


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(("network", "remat"), [("Constant", False), ("Rebinding", True)])
def test_rematerialised_steps_start_from_the_buffers_they_started_from(network, remat, engine) -> None:
    left, right = (ENGINES[engine].outcome(parts_of(NETWORKS[network], remat=remat), make_episode()) for remat in (False, True))
    assert all(torch.equal(g, right.gradients[name]) for name, g in left.gradients.items())


def test_the_gradient_is_that_of_the_value_with_the_buffers_as_constants() -> None:
    """Where what is written does not depend on parameters, the value is the function that is differentiated."""

    class Counter(Rebinding):
        def write(self, h):
            self.count = self.count + 1

    learner, episode = parts_of(Counter), make_episode()
    for engine in ENGINES.values():
        for differences, exact in finite_difference(engine, learner, episode):
            assert exact == pytest.approx(differences, rel=1e-6)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("steps", [0, 2])
def test_under_vmap_writing_is_refused_and_nothing_leaks(network, steps) -> None:
    learner, episode = parts_of(NETWORKS[network], steps=steps), make_episode()
    before = {name: b.clone() for name, b in learner.model.named_buffers()}
    for call in (lambda: VectorizedEngine().outcome(learner, episode), lambda: scores(VectorizedEngine(), learner, episode)):
        with pytest.raises(
            ConfigError, match=r"inner\.engine: .*cannot be batched over tasks.*; choose inner\.engine: higher, or \{name: vectorized, chunk: 1\}"
        ):
            call()
    after = dict(learner.model.named_buffers())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], b) for name, b in before.items())


def test_the_refusal_names_the_buffer() -> None:
    learner = parts_of(Rebinding)
    with pytest.raises(ConfigError, match=r"inner\.engine: the network writes its buffer backbone\.count in forward, which cannot be batched over tasks"):
        VectorizedEngine().outcome(learner, make_episode())


def test_a_tensor_under_two_names_stays_one_and_is_put_back_after_an_error() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    shared = torch.zeros(2)
    for module in model:
        module.register_buffer("b", shared)
    task = TaskBuffers(model)
    with task.within(model):
        model[0].b += 1
        assert torch.equal(model[1].b, torch.ones(2))
        assert model[1].b is not shared
    with pytest.raises(ZeroDivisionError), task.within(model):
        _ = 1 // int(model[1].b.sum().item() - 2)
    assert model[0].b is model[1].b is shared
    assert not shared.any()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_product_of_the_implicit_order_starts_from_the_buffers_after_the_steps(engine) -> None:
    """So that the solver, which calls the network over and over, solves one system, and goes on to the same solution."""
    few, many = (ENGINES[engine].outcome(parts_of(Rebinding, order=Implicit(iterations=n), proximal=1.0), make_episode()).gradients for n in (60, 90))
    assert relative(few, many) < 1e-8
