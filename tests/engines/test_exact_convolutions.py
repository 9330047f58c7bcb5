"""Every engine and evaluation call networks with convolutions that neither round nor vary, whatever torch's settings are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import exact_convolutions, exact_kernels
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.evaluation.embedding import embed
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.rules.sgd import SGD
from tests.oracles import make_episode, make_learner

cudnn = torch.backends.cudnn


class Noting(nn.Module):
    """Notes at every call whether a GPU's convolutions would round their inputs or add up in any order."""

    seen: list[bool] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.features = nn.Linear(16, 3), 3

    def forward(self, x: Tensor) -> Tensor:
        Noting.seen.append(cudnn.allow_tf32 or not cudnn.deterministic)
        return self.layer(x.flatten(1)[:, :16])


@pytest.fixture(params=[True, False])
def setting(request, monkeypatch):
    monkeypatch.setattr(Noting, "seen", [])
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = request.param
    yield request.param
    cudnn.allow_tf32 = before


@pytest.mark.parametrize("engine", [VectorizedEngine(), VectorizedEngine(1, 2), HigherEngine()], ids=lambda e: e.description)
def test_engines(engine, setting) -> None:
    learner, episode = make_learner(SGD(), CrossEntropy(), BootstrappedKL(1), Linear(3, 3), backbone=Noting()), make_episode(tasks=2)
    engine.outcome(learner, episode)
    engine.adapt(learner, episode.support, episode)
    assert Noting.seen
    assert not any(Noting.seen)
    assert cudnn.allow_tf32 is setting
    assert not cudnn.deterministic


def test_embeddings(setting) -> None:
    embed(Model(Noting(), Linear(3, 3)), torch.rand(2, 3, 16))
    assert Noting.seen
    assert not any(Noting.seen)
    assert cudnn.allow_tf32 is setting
    assert not cudnn.deterministic


def test_recurrent_layers_are_called_without_cudnn_and_it_is_back_after(setting) -> None:
    with exact_kernels(nn.GRU(2, 2)):
        assert not cudnn.enabled
    assert cudnn.enabled
    assert cudnn.allow_tf32 is setting
    assert not cudnn.deterministic


def test_precisions_of_single_kinds_of_layer_are_a_choice_and_stay() -> None:
    before = cudnn.conv.fp32_precision
    try:
        cudnn.conv.fp32_precision = "ieee"
        with exact_convolutions():
            assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.conv.fp32_precision == "ieee"
    finally:
        cudnn.conv.fp32_precision = before
    assert cudnn.allow_tf32
