"""The way back from the adapted weights."""

from __future__ import annotations

import dataclasses

import torch

from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Reptile
from metaflowkit.rules.sgd import SGD
from tests.oracles import make_episode, make_learner


def test_without_steps_there_is_no_way_back() -> None:
    learner = make_learner(SGD(), Contrastive(), QueryLoss(), Prototype(), steps=0, order=Reptile())
    assert all(torch.equal(g, torch.zeros_like(g)) for g in VectorizedEngine(1, 1).outcome(learner, make_episode()).gradients.values())


def test_twice_the_rate_is_twice_the_way_of_one_step() -> None:
    learner, episode = make_learner(SGD(lr=0.01), Contrastive(), QueryLoss(), Prototype(), steps=1, order=Reptile()), make_episode()
    once = VectorizedEngine(1, 1).outcome(learner, episode).gradients
    twice = VectorizedEngine(1, 1).outcome(dataclasses.replace(learner, rule=SGD(lr=0.02)), episode).gradients
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], 2 * gradient, rtol=1e-9, atol=1e-12)
