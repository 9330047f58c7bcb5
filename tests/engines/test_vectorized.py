"""The vectorised engine: the size of its chunks changes memory and nothing else; nothing outside it is touched."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.rules.sgd import SGD
from tests.oracles import make_episode, make_learner, relative


@pytest.mark.parametrize("chunk", [1, 2, 3, None])
def test_chunks_agree_and_leave_the_model_and_the_generator_alone(chunk) -> None:
    learner, episode = make_learner(SGD(), Contrastive(), BootstrappedKL(2), Prototype()), make_episode(tasks=4)
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    state = torch.get_rng_state()
    result = VectorizedEngine(chunk).outcome(learner, episode)
    adapted = VectorizedEngine(chunk).adapt(learner, episode.support, episode, query_scores)
    reference = VectorizedEngine(1).outcome(learner, episode)
    assert relative(result.gradients, reference.gradients) < 1e-12
    assert adapted.read.shape == (4, 6, 3)
    assert torch.equal(torch.get_rng_state(), state)
    for n, p in learner.model.named_parameters():
        assert torch.equal(p, before[n])
        assert p.grad is None
        assert not result.gradients[n].requires_grad
