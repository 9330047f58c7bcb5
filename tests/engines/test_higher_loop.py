"""The engine on higher leaves model and generator alone, and keeps no graph alive between calls."""

from __future__ import annotations

import gc

import torch

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.inner.contrastive import Contrastive
from metaflowkit.inner.sgd import SGD
from metaflowkit.models.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from tests.oracles import make_episode, make_parts


def test_nothing_outside_is_touched_and_nothing_is_kept() -> None:
    parts, episode = make_parts(SGD(momentum=0.5), Contrastive(), BootstrappedKL(2), Prototype()), make_episode()
    before = {n: p.detach().clone() for n, p in parts.model.named_parameters()}
    state = torch.get_rng_state()
    counts = []
    gc.collect()
    gc.disable()  # a cycle would keep unrolled weights until a collection, which large tensors do not bring about
    try:
        for _ in range(4):
            HigherEngine().outcome(parts, episode)
            HigherEngine().adapt(parts, episode.support, episode)
            counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert counts[1] == counts[-1]
    assert torch.equal(torch.get_rng_state(), state)
    for n, p in parts.model.named_parameters():
        assert torch.equal(p, before[n])
        assert p.grad is None
