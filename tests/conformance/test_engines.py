"""Every backbone, head, loss, rule and objective through both engines, in float64.

Oracles: central finite differences (on smooth networks, where they are exact enough), and the two engines against each other.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

import metaflowkit.objectives
from metaflowkit.composition.few_shot import query_scores
from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.orders import First
from metaflowkit.trees import Params
from tests.oracles import Smooth, finite_difference, make_episode, make_learner, relative, scores

RULES = [
    Choice("sgd", {"lr": 0.3}),
    Choice("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    # large eps: near g = 0 a step such as g/(|g|+eps) has a kink in its second derivative
    Choice("adam", {"lr": 0.5, "eps": 0.1}),
    Choice("adamw", {"lr": 0.5, "eps": 0.1, "weight_decay": 0.1}),
    Choice("rmsprop", {"lr": 0.2, "eps": 0.1, "momentum": 0.5, "centered": True}),
    Choice("adagrad", {"lr": 0.5, "eps": 0.1, "initial": 0.1}),
    Choice("adadelta", {"lr": 1.0, "eps": 0.01}),
    Choice("adamax", {"lr": 0.5, "eps": 0.5}),
    Choice("nadam", {"lr": 0.1, "eps": 0.1}),
]
LOSSES = [name for name in r.LOSSES.entries() if name not in ("example_weights", "task")]  # a part of the model; one of the others under another name
HEADS = [Choice("prototype"), Choice("prototype", {"metric": "euclidean", "temperature": 5.0}), Choice("linear")]
OBJECTIVES = [
    Choice("bootstrapped_kl", {"delta": 2}),
    Choice("bootstrapped_kl", {"delta": 2, "grounded": False, "direction": "reverse", "temperature": 2.0}),
    Choice("query_loss"),
    Choice("bootstrapped_l2", {"delta": 2}),
    Choice("bootstrapped_features", {"delta": 1, "grounded": False, "ema": 0.9}),
    Choice("bootstrapped_features", {"delta": 2, "metric": "euclidean"}),
    Choice("prototype_contrastive"),
    Choice("nt_xent", {"temperature": 0.2}),
    Choice("weighted_sum", {"terms": [Choice("bootstrapped_kl", {"delta": 2}), Choice("nt_xent")], "weights": [1.0, 0.1]}),
]
BOOTSTRAPPED = [c for c in OBJECTIVES if c.name.startswith("bootstrapped")]
BACKBONES = {
    "conv4": {"width": 2},
    "conv4-group": {"width": 2, "norm": "group"},
    "resnet12": {"width": 1},
    "mlp": {"widths": [5, 4]},
    "resnet18": {},
}
ENGINES = {
    "higher": HigherEngine(),  # the one that calls the model with torch's own kernels
    "one by one": VectorizedEngine(chunk=1, workers=1),
    "side by side": VectorizedEngine(chunk=1, workers=2),
    "all at once": VectorizedEngine(),
}


def test_every_component_is_covered() -> None:
    assert {c.name for c in RULES} == set(r.RULES.entries()) - {"higher"}  # which runs in one engine alone
    assert {c.name for c in HEADS} == set(r.HEADS.entries()) - {"normal"}  # of policies
    assert {c.name for c in OBJECTIVES} == set(r.OBJECTIVES.entries())
    assert {name.split("-")[0] for name in BACKBONES} == set(r.BACKBONES.entries()) - {
        "text",
        "torchvision",
        "timm",
    }  # the first reads no images; the others: tests/models


def parts_of(rule, loss, head, objective, backbone=None, steps=2, **more):
    features = (backbone or Smooth()).features
    torch.manual_seed(7)
    built = r.HEADS.build(head, features=features, way=3)
    return make_learner(r.RULES.build(rule), r.LOSSES.build(Choice(loss)), r.OBJECTIVES.build(objective), built, backbone, steps, **more)


def combinations() -> Iterator[Any]:
    """All of them; those in which every rule, loss and head meet once, and every two with every objective, are quick, the rest slow."""
    for places in itertools.product(*(range(len(kind)) for kind in (RULES, LOSSES, HEADS, OBJECTIVES))):
        learner = (kind[i] for kind, i in zip((RULES, LOSSES, HEADS, OBJECTIVES), places))
        yield pytest.param(*learner, marks=() if sum(places) % len(OBJECTIVES) == 0 else pytest.mark.slow)


@pytest.mark.parametrize(("rule", "loss", "head", "objective"), list(combinations()), ids=str)
def test_engines_agree_and_match_finite_differences(rule, loss, head, objective) -> None:
    learner = parts_of(rule, loss, head, objective)
    episode = make_episode()
    outcomes = {name: engine.outcome(learner, episode) for name, engine in ENGINES.items()}
    reference = outcomes["higher"]
    assert sum(g.abs().sum() for g in reference.gradients.values()) > 1e-9
    for outcome in outcomes.values():
        assert relative(outcome.gradients, reference.gradients) < 1e-9
        torch.testing.assert_close(outcome.value, reference.value, rtol=1e-10, atol=1e-14)
    if (
        objective.name in ("query_loss", "prototype_contrastive", "nt_xent") and rule.name != "adamax"
    ):  # its maximum has kinks; their value is the function that is differentiated; a bootstrap holds the target fixed
        for differences, exact in finite_difference(ENGINES["one by one"], learner, episode):
            assert exact == pytest.approx(differences, rel=2e-6, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "resnet18"])
def test_engines_agree_on_the_whole_product(backbone, head, objective) -> None:
    """Every backbone x head x loss x rule x objective, but for the largest backbone, on which it would take hours."""
    for rule, loss in itertools.product(RULES, LOSSES):
        check_engines_agree(backbone, rule, loss, head, objective)


@pytest.mark.parametrize(
    ("backbone", "objective"),
    [pytest.param(b, o, marks=pytest.mark.slow if b == "resnet18" else ()) for b in BACKBONES for o in (OBJECTIVES if b == "conv4" else OBJECTIVES[:3])],
    ids=str,
)
def test_engines_agree_on_every_backbone(backbone, objective) -> None:
    check_engines_agree(backbone, RULES[1], "contrastive", HEADS[0], objective)


def check_engines_agree(backbone, rule, loss, head, objective) -> None:
    shape = (1, 16, 16) if backbone != "resnet18" else (1, 8, 8)
    torch.manual_seed(0)
    built = r.BACKBONES.build(Choice(backbone.split("-")[0], BACKBONES[backbone]), shape=shape)
    learner = parts_of(rule, loss, head, objective, built, steps=1 if backbone == "resnet18" else 2)
    episode = make_episode(shape=shape, tasks=1 if backbone == "resnet18" else 2)
    reference = ENGINES["higher"].outcome(learner, episode)
    for name, engine in ENGINES.items():
        assert relative(engine.outcome(learner, episode).gradients, reference.gradients, least=1e-3) < 1e-9, (name, rule, loss)


class Held(NamedTuple):
    """A target that is computed once and then a constant."""

    target: Params

    def params(self, adapted, task):
        return self.target

    def is_student(self, outer_step):
        return False


@pytest.mark.parametrize("objective", BOOTSTRAPPED, ids=str)
def test_bootstrap_gradient_matches_finite_differences_with_the_target_held(objective) -> None:
    """Central differences move the student alone."""
    learner = parts_of(RULES[0], "contrastive", HEADS[0], objective)
    episode, targets = make_episode(tasks=1), []

    def keep(adapted, task):
        targets.append(learner.objective.target.params(adapted, task))
        return learner.objective(adapted, task)

    HigherEngine().outcome(with_objective(learner, keep), episode)
    held = copy.copy(learner.objective)
    held.target = Held(targets[0])
    constant = with_objective(learner, held)
    for engine in ENGINES.values():
        for differences, exact in finite_difference(engine, constant, episode):
            assert exact == pytest.approx(differences, rel=1e-6, abs=1e-10)
        assert relative(engine.outcome(learner, episode).gradients, engine.outcome(constant, episode).gradients) < 1e-12


def with_objective(learner, objective):
    return dataclasses.replace(learner, objective=objective)


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
def test_first_order_is_the_gradient_at_the_adapted_weights(engine) -> None:
    """Closed form: with plain SGD the first-order meta-gradient is the query gradient at the adapted parameters."""
    learner = parts_of(RULES[0], "cross_entropy", HEADS[2], Choice("query_loss"), order=First())
    episode = make_episode(tasks=1)
    adapted = engine.adapt(learner, episode.support, episode).params
    weights = {n: p[0].clone().requires_grad_() for n, p in adapted.items()}
    outputs = torch.func.functional_call(learner.model, weights, (episode.support, episode.query.x[0], 3))
    loss = torch.nn.functional.cross_entropy(outputs.logits, episode.query.y[0])
    expected = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
    assert relative(engine.outcome(learner, episode).gradients, expected) < 1e-10


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
def test_adapt_equals_a_loop_of_torch_sgd(engine) -> None:
    """Independent implementation: torch.optim.SGD on a deep copy of the model."""
    learner = parts_of(RULES[1], "cross_entropy", HEADS[0], Choice("query_loss"))
    episode = make_episode()
    shown = make_episode(shot=3, seed=5).support
    adaptation = engine.adapt(learner, shown, episode, query_scores)
    for t in range(2):
        model = copy.deepcopy(learner.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
        for _ in range(learner.steps):
            optimizer.zero_grad()
            out = model(type(shown)(shown.x[t], shown.y[t]), None, 3)
            torch.nn.functional.cross_entropy(out.logits, shown.y[t]).backward()
            optimizer.step()
        support = type(shown)(episode.support.x[t], episode.support.y[t])
        torch.testing.assert_close(adaptation.read[t], model(support, episode.query.x[t], 3).logits, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_no_further_steps_and_no_grounding_give_exactly_zero(engine, direction) -> None:
    learner = parts_of(RULES[0], "contrastive", HEADS[0], Choice("bootstrapped_kl", {"delta": 0, "grounded": False, "direction": direction}))
    outcome = engine.outcome(learner, make_episode())
    assert outcome.value.item() == 0
    assert all(torch.equal(g, torch.zeros_like(g)) for g in outcome.gradients.values())


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
@pytest.mark.parametrize("grounded", [True, False])
def test_target_moves_on_and_equals_a_longer_inner_loop(engine, grounded) -> None:
    """The ungrounded target after K + delta steps is what K + delta plain inner steps give; the grounded one differs."""
    learner = parts_of(RULES[1], "contrastive", HEADS[0], Choice("bootstrapped_kl", {"delta": 3, "grounded": grounded}))
    episode = make_episode(tasks=1)
    seen = {}

    def spy(adapted, task):
        target = adapted.call(learner.objective.target.params(adapted, task), task.query.x).logits
        student = adapted.call(adapted.params, task.query.x).logits
        return student.sum() * 0, {"moved": (target - student.detach()).norm(), **{f"{i}": v for i, v in enumerate(target.flatten())}}

    seen = engine.outcome(with_objective(learner, spy), episode).metrics
    assert seen["moved"] > 1e-3
    long = dataclasses.replace(learner, steps=learner.steps + 3)
    logits = scores(engine, long, episode).flatten()
    target = torch.stack([seen[str(i)] for i in range(len(logits))])
    assert torch.allclose(target, logits, rtol=1e-9) is not grounded


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
def test_target_from_the_moving_average_equals_its_own_inner_loop(engine) -> None:
    """K + delta plain inner steps of a model whose weights are the average; without an average, those of the model itself."""
    learner = parts_of(RULES[1], "contrastive", HEADS[0], Choice("bootstrapped_kl", {"delta": 3, "grounded": False, "ema": 0.9}))
    episode = make_episode(tasks=1)
    generator = torch.Generator().manual_seed(3)
    average = {name: p + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in learner.meta().items()}

    def spy(adapted, task):
        target = adapted.call(learner.objective.target.params(adapted, task), task.query.x).logits
        return adapted.call(adapted.params, task.query.x).logits.sum() * 0, {f"{i}": v for i, v in enumerate(target.flatten())}

    for weights in (None, average):
        metrics = engine.outcome(dataclasses.replace(learner, objective=spy, average=weights), episode).metrics
        averaged = dataclasses.replace(learner, model=copy.deepcopy(learner.model), steps=learner.steps + 3)
        averaged.model.load_state_dict(weights or {}, strict=False)
        expected = scores(engine, averaged, episode).flatten()
        torch.testing.assert_close(torch.stack([metrics[str(i)] for i in range(len(expected))]), expected, rtol=1e-9, atol=1e-12)


def test_objectives_package_lists_its_components() -> None:
    classes = {"BootstrappedFeatures", "BootstrappedKL", "BootstrappedL2", "NTXent", "PrototypeContrastive", "QueryLoss", "WeightedSum"}
    assert set(metaflowkit.objectives.__all__) == classes
