"""The sum of objectives: in YAML, in Python, and what its terms are refused for."""

from __future__ import annotations

import pytest
import torch
import yaml

from metaflowkit.composition.flow import build
from metaflowkit.config.choice import Choice
from metaflowkit.config.pipeline import Pipeline, pipeline_of
from metaflowkit.errors import ConfigError
from metaflowkit.objectives import BootstrappedKL, BootstrappedL2, QueryLoss, WeightedSum
from metaflowkit.types import Adapted, Episode
from tests.small import SMALL

TERMS = "objective: {name: weighted_sum, terms: [{name: bootstrapped_kl, delta: 2}, query_loss], weights: [1.0, 0.5]}"


def parse(text: str, overrides: list[str] | None = None) -> Pipeline:
    return pipeline_of(yaml.safe_load(text), overrides or [])


def gradients(text: str) -> dict[str, torch.Tensor]:
    flow = build(parse(SMALL + text))
    return flow.learner.outcome(flow.episode(1)).gradients


def test_the_meta_gradient_is_the_weighted_sum_of_those_of_the_terms() -> None:
    both = gradients(TERMS)
    first, second = gradients("objective: {name: bootstrapped_kl, delta: 2}"), gradients("objective: query_loss")
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, first[name] + 0.5 * second[name], rtol=1e-3, atol=1e-5)


def test_terms_stand_in_the_pipeline_with_their_defaults_and_are_changed_by_their_path() -> None:
    pipeline = parse(SMALL + TERMS, overrides=["objective.terms.0.delta=3", "objective.weights.1=2"])
    first, second = pipeline.objective.settings["terms"]
    assert (first.name, first.settings["delta"], first.settings["grounded"], second) == ("bootstrapped_kl", 3, True, Choice("query_loss"))
    assert pipeline.objective.settings["weights"] == [1.0, 2.0]
    assert pipeline_of(pipeline.plain()).objective == pipeline.objective
    assert build(pipeline).learner.objective.further_steps == 3


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ("{name: weighted_sum}", "objective.terms: is missing and has no default; add it (a list (a component of the same kind each))"),
        ("{name: weighted_sum, terms: []}", "objective: terms must name at least one objective, got none"),
        ("{name: weighted_sum, terms: [query_loss], weights: [1, 2]}", "objective: weights must be as many as terms, 1, got 2; give one for each"),
        ("{name: weighted_sum, terms: query_loss}", "objective.terms: must be a list (a component of the same kind each), got 'query_loss'"),
        ("{name: weighted_sum, terms: [query_los]}", "objective.terms.0: there is no objective 'query_los'; did you mean 'query_loss'?"),
        ("{name: weighted_sum, terms: [{name: bootstrapped_kl, detla: 2}]}", "objective.terms.0.detla: objective 'bootstrapped_kl' has no such setting"),
        ("{name: weighted_sum, terms: [{name: bootstrapped_kl, delta: 0}]}", "objective.terms.0: a grounded target takes its last step on the query"),
    ],
)
def test_what_is_refused(objective, says) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(SMALL + f"objective: {objective}")
    assert says in str(refused.value)


def test_a_term_that_compares_classes_is_refused_by_tasks_without_classes() -> None:
    with pytest.raises(ConfigError, match="objective.terms.1: 'nt_xent' compares classes, which the tasks 'sinusoid' have not"):
        parse(
            "tasks: sinusoid\nmodel: {backbone: {name: mlp, widths: [8]}, head: linear}\nobjective: {name: weighted_sum, terms: [query_loss, nt_xent]}\ninner: {loss: task}"
        )


def test_objects_from_python_are_terms() -> None:
    def zero(adapted: Adapted, task: Episode):
        return next(iter(adapted.params.values())).sum() * 0, {"nothing": torch.tensor(0.0)}

    objective = WeightedSum([BootstrappedKL(4), QueryLoss(), zero])
    assert (objective.further_steps, objective.weights) == (4, [1.0, 1.0, 1.0])
    assert WeightedSum([BootstrappedKL(4, ema=0.9), BootstrappedL2(2), zero]).average_decay == 0.9
    with pytest.raises(ValueError, match=r"one decay of the moving average, got \[0.5, 0.9\]; give them the same ema"):
        WeightedSum([BootstrappedKL(4, ema=0.9), BootstrappedL2(2, ema=0.5)])
    with pytest.raises(ValueError, match="objective 'int' must define __call__"):
        WeightedSum([1])
