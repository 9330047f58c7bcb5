"""The distance in parameters, where student and target are known."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.criteria import Classification
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_l2 import BootstrappedL2
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from metaflowkit.types import Adapted, Episode, Labelled
from tests.oracles import make_episode, make_learner, relative

QUERY = Labelled(torch.zeros(2, 1), torch.tensor([0, 1]))


def test_value_and_gradient_are_those_of_the_squared_distance() -> None:
    params = {"a": torch.tensor([[1.0, 2.0]], requires_grad=True), "b": torch.tensor(3.0, requires_grad=True), "still": torch.tensor(7.0)}

    def advance(params, state, steps):
        assert not any(p.requires_grad for p in params.values())
        return {**params, "a": params["a"] + steps, "b": params["b"] - 2.0 * steps}, state

    adapted = Adapted(params, {}, lambda p, x: torch.eye(2), advance, None, lambda p, draw: QUERY, Classification(), None)  # type: ignore[arg-type]
    value, metrics = BootstrappedL2(3, grounded=False)(adapted, Episode(QUERY, QUERY, 2))
    assert value.item() == pytest.approx(2 * 3**2 + 6**2)
    a, b = torch.autograd.grad(value, [params["a"], params["b"]])
    assert a.tolist() == [[-6.0, -6.0]]  # 2 (w - target)
    assert b.item() == 12.0
    assert metrics["accuracy"].item() == 1


def test_with_one_grounded_step_of_sgd_the_gradient_is_that_of_the_query_loss() -> None:
    rate, episode = 0.05, make_episode()
    standard, bootstrapped = (make_learner(SGD(rate), Contrastive(), o, Prototype()).outcome(episode).gradients for o in (QueryLoss(), BootstrappedL2(1)))
    assert relative({name: 2 * rate * g for name, g in standard.items()}, bootstrapped) < 1e-12
