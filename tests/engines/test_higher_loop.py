"""The engine on higher leaves model and generator alone, and keeps no graph alive between calls."""

from __future__ import annotations

import gc

import pytest
import torch

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, make_episode, make_learner, relative


def test_nothing_outside_is_touched_and_nothing_is_kept() -> None:
    learner, episode = make_learner(SGD(momentum=0.5), Contrastive(), BootstrappedKL(2), Prototype()), make_episode()
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    state = torch.get_rng_state()
    counts = []
    gc.collect()
    gc.disable()  # a cycle would keep unrolled weights until a collection, which large tensors do not bring about
    try:
        for _ in range(4):
            HigherEngine().outcome(learner, episode)
            HigherEngine().adapt(learner, episode.support, episode)
            counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert counts[1] == counts[-1]
    assert torch.equal(torch.get_rng_state(), state)
    for n, p in learner.model.named_parameters():
        assert torch.equal(p, before[n])
        assert p.grad is None


class Sliced(Smooth):
    def forward(self, x):
        return self.layers[2:](self.layers[:2](x))


def test_a_network_that_makes_modules_in_its_forward_is_refused() -> None:
    learner, episode = make_learner(SGD(), Contrastive(), QueryLoss(), Prototype(), Sliced()), make_episode()
    with pytest.raises(
        ConfigError, match=r"^inner\.engine: higher cannot run this network, whose forward makes modules, such as a slice of a Sequential; choose "
    ):
        HigherEngine().outcome(learner, episode)
    plain = make_learner(SGD(), Contrastive(), QueryLoss(), Prototype(), Smooth())
    plain.model.load_state_dict(learner.model.state_dict())
    assert relative(VectorizedEngine(1).outcome(learner, episode).gradients, HigherEngine().outcome(plain, episode).gradients) < 1e-9


def test_a_mistake_of_the_network_keeps_its_traceback() -> None:
    class Mistaken(Smooth):
        def forward(self, x):
            return len(3)

    with pytest.raises(TypeError, match="has no len"):
        HigherEngine().outcome(make_learner(SGD(), Contrastive(), QueryLoss(), Prototype(), Mistaken()), make_episode())
