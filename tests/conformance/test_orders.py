"""Every way in which the inner loop enters the outer gradient, in every engine, in float64.

Oracles: finite differences, a plain autograd loop, the adapted weights, a converged inner loop, and bit equality.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.func import functional_call

from metaflowkit.config.registry import ORDERS
from metaflowkit.config.schema import Fraction, NonNegative, Positive
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.rules.adam import Adam
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, finite_difference, make_episode, make_learner, relative

ENGINES = {"higher": HigherEngine(), "one by one": VectorizedEngine(chunk=1), "in twos": VectorizedEngine(chunk=2), "all at once": VectorizedEngine()}
each_engine = pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
HEAD = frozenset({"head.weight", "head.bias"})
BODY = frozenset({"backbone.layers.0.weight", "backbone.layers.1.weight", "backbone.layers.1.bias"})
POSITIVE, FRACTION, NONNEGATIVE = Positive.__metadata__[0], Fraction.__metadata__[0], NonNegative.__metadata__[0]


def linear() -> Linear:
    torch.manual_seed(7)
    return Linear(Smooth().features, 3)


def parts_of(rule=None, loss=None, objective=None, head=None, **more):
    return make_learner(rule or SGD(lr=0.3), loss or CrossEntropy(), objective or QueryLoss(), head or linear(), **more)


def test_every_order_is_tried_here() -> None:
    assert set(ORDERS.entries()) == {"exact", "first", "truncate", "reptile", "implicit"}


def by_hand(learner, episode, kept: int) -> dict[str, torch.Tensor]:
    """Plain autograd, one task: SGD whose gradients are constants in all but the last ``kept`` steps."""
    start = {n: p.detach().requires_grad_() for n, p in learner.model.named_parameters()}
    params = start
    support, query = ((s.x[0], s.y[0]) for s in (episode.support, episode.query))
    shown = type(episode.support)(*support)
    for k in range(learner.steps):
        loss = torch.nn.functional.cross_entropy(functional_call(learner.model, params, (shown, None, 3)).logits, support[1])
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        last = k >= learner.steps - kept
        params = {n: p - 0.3 * (g if last else g.detach()) for (n, p), g in zip(params.items(), grads)}
    loss = torch.nn.functional.cross_entropy(functional_call(learner.model, params, (shown, query[0], 3)).logits, query[1])
    return dict(zip(start, torch.autograd.grad(loss, list(start.values()))))


@each_engine
@pytest.mark.parametrize(
    ("order", "kept"),
    [(First(), 0), (Truncate(1), 1), (Truncate(2), 2), (Truncate(3), 3), (Exact(), 3)],
    ids=["first", "last", "last two", "last three", "exact"],
)
def test_orders_that_unroll_equal_a_plain_loop(engine, order, kept) -> None:
    learner, episode = parts_of(steps=3, order=order), make_episode(tasks=1)
    assert relative(engine.outcome(learner, episode).gradients, by_hand(learner, episode, kept)) < 1e-12


def test_orders_differ() -> None:
    episode = make_episode(tasks=1)
    by_order = [ENGINES["one by one"].outcome(parts_of(steps=3, order=order), episode).gradients for order in (First(), Truncate(1), Truncate(2), Exact())]
    for a, b in itertools.pairwise(by_order):
        assert relative(a, b) > 1e-3


@each_engine
def test_reptile_is_the_way_back(engine) -> None:
    learner, episode = parts_of(Adam(lr=0.1), order=Reptile(), adapts=HEAD), make_episode()
    outcome = engine.outcome(learner, episode)
    adapted = engine.adapt(learner, episode.support, episode).params
    for name, p in learner.model.named_parameters():
        torch.testing.assert_close(outcome.gradients[name], (p.detach() - adapted[name]).mean(0), rtol=1e-10, atol=1e-13)
    assert all(not outcome.gradients[name].any() for name in BODY)
    plain = engine.outcome(dataclasses.replace(learner, order=Exact()), episode)
    torch.testing.assert_close(outcome.value, plain.value, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("solver", "adapts"),
    [
        pytest.param(Implicit("cg", 40), None, id="cg, all"),
        pytest.param(Implicit("neumann", 150, rate=0.1), HEAD, id="neumann, head", marks=pytest.mark.slow),
        pytest.param(Implicit("cg", 40), HEAD, id="cg, head", marks=pytest.mark.slow),
        pytest.param(Implicit("neumann", 150, rate=0.1), None, id="neumann, all", marks=pytest.mark.slow),
    ],
)
def test_implicit_equals_finite_differences_through_a_converged_inner_loop(solver, adapts) -> None:
    learner, episode = parts_of(SGD(lr=0.06), steps=180, order=solver, proximal=2.0, adapts=adapts), make_episode(tasks=1)
    for differences, exact in finite_difference(ENGINES["one by one"], learner, episode, directions=1):
        assert exact == pytest.approx(differences, rel=1e-6)
    gradients = ENGINES["one by one"].outcome(learner, episode).gradients
    for engine in ENGINES.values():
        assert relative(engine.outcome(learner, episode).gradients, gradients) < 1e-9


@each_engine
@pytest.mark.parametrize("objective", [QueryLoss(), BootstrappedKL(3)], ids=["query", "bootstrap"])
@pytest.mark.parametrize("rule", [SGD(lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.01), Adam(lr=0.3, eps=0.1)], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "more", [{}, {"proximal": 0.5, "adapts": HEAD}, {"order": Truncate(2)}, {"learned": True}], ids=["exact", "proximal head", "truncate", "learned"]
)
def test_rematerialised_gradients_are_bit_equal(engine, objective, rule, more) -> None:
    more = {**more, "learned": learned_rates(4)} if "learned" in more else more
    learner, episode = parts_of(rule, objective=objective, steps=4, **more), make_episode()
    stored = engine.outcome(learner, episode)
    again = engine.outcome(dataclasses.replace(learner, remat=True), episode)
    assert torch.equal(again.value, stored.value)
    for name, g in stored.gradients.items():
        assert torch.equal(again.gradients[name], g), name


def learned_rates(steps: int, per: str = "layer", per_step: bool = True):
    """Learning rates by ``per``."""
    return lambda shapes: LearnedSettings([Learned("lr", 0.2, POSITIVE, per, per_step)], shapes, steps)


@each_engine
@pytest.mark.parametrize("per_step", [False, True], ids=["all steps", "per step"])
@pytest.mark.parametrize("per", ["all", "layer", "parameter", "element"])
def test_learned_rates_equal_finite_differences(engine, per, per_step) -> None:
    learner, episode = parts_of(learned=learned_rates(2, per, per_step)), make_episode()
    outcome = engine.outcome(learner, episode)
    learned = {n: g for n, g in outcome.gradients.items() if n.startswith("rule.")}
    assert sum(p.numel() for n, p in learner.model.named_parameters() if n in learned) == {
        "all": 1, "layer": 3, "parameter": 5, "element": sum(p.numel() for p in [*learner.model.backbone.parameters(), *learner.model.head.parameters()])
    }[per] * (2 if per_step else 1)  # fmt: skip
    assert all(g.abs().sum() > 0 for g in learned.values())
    for differences, exact in finite_difference(engine, learner, episode):
        assert exact == pytest.approx(differences, rel=2e-6)
    assert relative(outcome.gradients, ENGINES["higher"].outcome(learner, episode).gradients) < 1e-9


@each_engine
@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (SGD(lr=0.2, momentum=0.6, dampening=0.3, weight_decay=0.1), {"momentum": FRACTION, "dampening": FRACTION, "weight_decay": NONNEGATIVE}),
        (Adam(lr=0.2, eps=0.1, weight_decay=0.1), {"beta1": FRACTION, "beta2": FRACTION, "eps": POSITIVE, "weight_decay": NONNEGATIVE}),
    ],
    ids=["sgd", "adam"],
)
def test_other_learned_settings_equal_finite_differences(engine, rule, settings) -> None:
    learned = [Learned(name, rule.settings[name], bounds) for name, bounds in settings.items()]
    learner, episode = parts_of(rule, steps=3, learned=lambda shapes: LearnedSettings(learned, shapes, 3)), make_episode()
    gradients = engine.outcome(learner, episode).gradients
    assert {n for n in gradients if n.startswith("rule.")} == {f"rule.{name}" for name in settings}
    assert all(gradients[f"rule.{name}"].abs().sum() > 1e-9 for name in settings)
    for differences, exact in finite_difference(engine, learner, episode):
        assert exact == pytest.approx(differences, rel=2e-6)
    unlearned = dataclasses.replace(learner, model=type(learner.model)(learner.model.backbone, learner.model.head))
    torch.testing.assert_close(engine.outcome(learner, episode).value, engine.outcome(unlearned, episode).value, rtol=1e-7, atol=0.0)  # float32 logarithms


@each_engine
@pytest.mark.parametrize("objective", [QueryLoss(), BootstrappedKL(2)], ids=["query", "bootstrap"])
@pytest.mark.parametrize("adapts", [HEAD, BODY], ids=["ANIL", "BOIL"])
@pytest.mark.parametrize("frozen", [False, True], ids=["shared", "frozen"])
def test_a_part_that_adapts_and_the_rest(engine, objective, adapts, frozen) -> None:
    others = BODY if adapts is HEAD else HEAD
    learner, episode = parts_of(objective=objective, adapts=adapts, frozen=others if frozen else frozenset()), make_episode()
    adapted = engine.adapt(learner, episode.support, episode).params
    for name, p in learner.model.named_parameters():
        moved = not torch.equal(adapted[name][0], p.detach())
        assert moved is (name in adapts), name
    outcome = engine.outcome(learner, episode)
    assert set(outcome.gradients) == (adapts if frozen else adapts | others)
    assert relative(outcome.gradients, ENGINES["higher"].outcome(learner, episode).gradients) < 1e-10
    if not frozen and isinstance(objective, QueryLoss):
        for differences, exact in finite_difference(engine, learner, episode):
            assert exact == pytest.approx(differences, rel=2e-6)


@each_engine
def test_the_proximal_term_pulls_toward_the_start_and_is_differentiated(engine) -> None:
    episode = make_episode()
    near, far = (parts_of(SGD(lr=0.1), Contrastive(), head=Prototype(), steps=4, proximal=weight) for weight in (8.0, 0.0))
    moved = [sum((a - p.detach()).square().sum().item() for a, p in zip(engine.adapt(learner, episode.support, episode).params.values(), learner.model.parameters())) for learner in (near, far)]  # fmt: skip
    assert moved[0] < 0.5 * moved[1]
    for differences, exact in finite_difference(engine, near, episode):
        assert exact == pytest.approx(differences, rel=2e-6)
