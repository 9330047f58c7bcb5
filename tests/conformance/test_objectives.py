"""Every objective, in every family of tasks: a finite scalar with a gradient for the student, scalar metrics, and the further steps that its tag says."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.criteria import Classification, Decisions, Policy, Regression
from metaflowkit.types import Adapted, Episode, Labelled, Outputs

CASES = [
    *((name, {}) for name, entry in sorted(OBJECTIVES.entries().items()) if "terms" not in entry.settings),
    ("weighted_sum", {"terms": [Choice("query_loss"), Choice("bootstrapped_kl", {"delta": 2})], "weights": [1.0, 0.3]}),
    ("bootstrapped_kl", {"delta": 1, "ema": 0.9}),
    ("bootstrapped_kl", {"delta": 3, "grounded": False, "direction": "reverse", "temperature": 2.0}),
]
CLASSES = torch.tensor([0, 1, 2, 0, 1])
FAMILIES = {
    "classification": (Classification(), CLASSES),
    "regression": (Regression(), torch.linspace(-1, 1, 15).view(5, 3)),
    "policy": (Policy(discrete=True), Decisions(CLASSES, torch.linspace(-1, 1, 5), torch.full((5,), 0.2))),
}


class Student:
    """A linear model that has adapted, and counts the further steps that are taken with it."""

    def __init__(self, family: str) -> None:
        self.criterion, y = FAMILIES[family]
        generator = torch.Generator().manual_seed(0)
        support = Labelled(torch.randn(5, 4, generator=generator), y)
        self.task = Episode(support, Labelled(torch.randn(5, 4, generator=generator), y), 3)
        self.weight = torch.randn(4, 3, generator=generator, requires_grad=True)
        self.steps = 0
        self.adapted = Adapted(
            {"w": self.weight}, {}, self.call, self.advance, self.descend, lambda params, draw: self.task.query, self.criterion, self.restart
        )

    def call(self, params, x):
        return Outputs(x @ params["w"], x @ params["w"])

    def advance(self, params, state, steps):
        self.steps += steps
        return {"w": 0.8**steps * params["w"]}, state

    def restart(self):
        return {"w": 0.9 * self.weight.detach()}, {}

    def descend(self, params, state, loss):
        self.steps += 1
        w = params["w"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss({"w": w}), w)
        return {"w": w.detach() - 0.5 * gradient}, state


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_value_gradient_metrics_and_further_steps(name, settings, family) -> None:
    objective, student = OBJECTIVES.build(Choice(name, settings)), Student(family)
    if objective.needs_classes and family != "classification":
        pytest.skip("compares classes")
    before = student.weight.detach().clone()
    value, metrics = objective(student.adapted, student.task)
    assert value.shape == ()
    assert value.isfinite()
    (gradient,) = torch.autograd.grad(value, student.weight)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-6
    assert all(isinstance(key, str) and metric.shape == () and metric.isfinite() for key, metric in metrics.items())
    assert student.steps == objective.further_steps
    assert torch.equal(student.weight, before)
