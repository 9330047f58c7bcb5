"""Networks beyond the shipped ones, in every engine, in float64: finite differences, the engines against each other, and refusals.

The network reads 8x8 images as sequences of eight rows.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import draws, unsafe, without_dropout
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.models.normalisation import StoredNorm
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import First
from metaflowkit.rules.sgd import SGD
from tests.oracles import finite_difference, make_episode, make_learner, relative, scores

ENGINES = {"higher": HigherEngine(), "one by one": VectorizedEngine(chunk=1), "all at once": VectorizedEngine()}
each_engine = pytest.mark.parametrize("engine", list(ENGINES))


class Rows(nn.Module):
    """Rows of an image through a layer under test, [n, 1, 8, 8] -> [n, 4]."""

    def __init__(self, make) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.layer, self.features = nn.Linear(8, 4), make(), 4

    def forward(self, x):
        rows = self.layer(self.first(x.squeeze(1)).tanh())
        rows = rows[0] if isinstance(rows, tuple) else rows
        return (rows.tanh() + rows.sin()).mean(1)


class Channels(nn.Module):
    """A layer over [n, channels, length]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


def stored(frozen: bool) -> nn.Module:
    """Stored statistics after 0, 1 and 2 steps."""
    norm = StoredNorm(4, frozen)
    norm.set_steps(2)
    norm.means.copy_(torch.linspace(-0.5, 0.5, norm.means.numel()).view_as(norm.means))
    norm.variances.copy_(torch.linspace(0.5, 1.5, norm.means.numel()).view_as(norm.means))
    return Channels(nn.Sequential(nn.Unflatten(2, (4, 2)), norm, nn.Flatten(2)))


class Attention(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x).tanh())


class Scaled(nn.Module):
    """A parametrization: weight normalisation written out."""

    def forward(self, v):
        return v / v.square().sum(1, keepdim=True).sqrt()


def parametrized() -> nn.Module:
    layer = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())
    return layer


def encoder_layer(dropout: float = 0.0) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, dropout=dropout, activation="gelu", batch_first=True)


NETWORKS = {
    "LayerNorm": lambda: nn.LayerNorm(4),
    "GroupNorm": lambda: Channels(nn.GroupNorm(2, 4)),
    "RMSNorm": lambda: nn.RMSNorm(4),
    "InstanceNorm": lambda: Channels(nn.InstanceNorm1d(4, affine=True)),
    "BatchNorm, current": lambda: Channels(nn.BatchNorm1d(4, track_running_stats=False)),
    "BatchNorm, running": lambda: Channels(nn.BatchNorm1d(4)),
    "BatchNorm, eval": lambda: Channels(nn.BatchNorm1d(4).eval()),
    "BatchNorm, frozen": lambda: stored(True),
    "BatchNorm, per step": lambda: stored(False),
    "dropout": lambda: nn.Dropout(0.3),
    "GRU": lambda: nn.GRU(4, 4, batch_first=True),
    "LSTM": lambda: nn.LSTM(4, 4, batch_first=True),
    "GRU, dropout": lambda: nn.GRU(4, 4, num_layers=2, dropout=0.3, batch_first=True),
    "attention": Attention,
    "attention, dropout": lambda: Attention(0.3),
    "encoder layer": encoder_layer,
    "encoder, dropout": lambda: nn.TransformerEncoder(encoder_layer(0.2), 2, enable_nested_tensor=False),
    "tied weights": Tied,
    "parametrization": parametrized,
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)),
}
ONE_BY_ONE = {"BatchNorm, running", "GRU", "LSTM", "GRU, dropout"}
OWN_MASKS = {"encoder, dropout"}  # masks are drawn in the order of memory, which vmap lays out in another way; the gradient is right for them
DROPS = {name for name in NETWORKS if "dropout" in name}


def parts_of(name: str, objective=None):
    return make_learner(SGD(lr=0.3), Contrastive(1.0), objective or QueryLoss(), Prototype(temperature=1.0), Rows(NETWORKS[name]))


@each_engine
@pytest.mark.parametrize("name", list(NETWORKS))
def test_gradients_equal_finite_differences_or_the_engine_refuses(name, engine) -> None:
    learner, episode = parts_of(name), make_episode()._replace(seed=3)
    refused = unsafe(learner.model, vmap=ENGINES[engine].batches, second=True)
    assert bool(refused) is (name in ONE_BY_ONE and engine == "all at once")
    if refused:
        assert refused[0].endswith("choose inner.engine: higher, or {name: vectorized, chunk: 1}")
        return
    state = {n: b.clone() for n, b in learner.model.named_buffers()}
    outcome = ENGINES[engine].outcome(learner, episode)
    if not (name in OWN_MASKS and engine == "all at once"):
        assert relative(outcome.gradients, ENGINES["higher"].outcome(learner, episode).gradients) < 1e-9
    for differences, exact in finite_difference(ENGINES[engine], learner, episode, h=1e-5):
        assert exact == pytest.approx(differences, rel=1e-5)
    assert all(torch.equal(b, state[n]) for n, b in learner.model.named_buffers())


@each_engine
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - ONE_BY_ONE))
def test_bootstrapped_gradients_agree(name, engine) -> None:
    if name in OWN_MASKS and engine == "all at once":
        pytest.skip("its masks are others")
    learner, episode = parts_of(name, BootstrappedKL(2)), make_episode()
    by_engine = [ENGINES[e].outcome(learner, episode).gradients for e in (engine, "higher")]
    assert relative(*by_engine) < 1e-9


@each_engine
@pytest.mark.parametrize("name", sorted(DROPS - ONE_BY_ONE))
def test_masks_follow_the_episode_and_spare_evaluation(name, engine) -> None:
    """Another seed of the episode gives other masks; what is left of the global generator does not matter; scores drop nothing."""
    learner, episode = parts_of(name), make_episode()
    values = [ENGINES[engine].outcome(learner, episode._replace(seed=seed)).value.item() for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    still = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(temperature=1.0), Rows(NETWORKS[name]), steps=0)
    assert torch.equal(*(scores(ENGINES[engine], still, episode._replace(seed=seed)) for seed in (1, 2)))


def test_which_networks_draw() -> None:
    for name in NETWORKS:
        assert draws(parts_of(name).model) is (name in DROPS)
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.0)).train()
    with without_dropout(model):
        assert not draws(model)
    assert draws(model)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "parametrizations.weight.0 (_WeightNorm): torch's weight normalisation has a wrong second"),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)), "parametrizations.weight.0 (_SpectralNorm): spectral normalisation changes its vectors"),
        (nn.utils.spectral_norm(nn.Linear(2, 2)), " (Linear): spectral normalisation changes its vectors at every call in training mode"),
        (nn.EmbeddingBag(2, 2), " (EmbeddingBag): it has no second derivative in torch; use Embedding and a sum"),
    ],
    ids=["weight_norm", "spectral_norm", "spectral_norm hook", "EmbeddingBag"],
)
def test_networks_without_a_right_second_derivative_are_refused(layer, says) -> None:
    (problem,) = unsafe(layer, vmap=False, second=True)
    assert problem.startswith(says)
    assert unsafe(layer, vmap=False, second=False) == []
    assert unsafe(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)).eval(), vmap=False, second=True) == []


class Unbatched(nn.Module):
    """What no rule knows and vmap cannot do: a decision by value."""

    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


def test_what_vmap_finds_out_by_itself_names_the_other_engine() -> None:
    learner = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(), Rows(Unbatched))
    with pytest.raises(ConfigError, match=r"inner\.engine: this network cannot be batched over tasks \(.*\); choose inner\.engine: higher"):
        ENGINES["all at once"].outcome(learner, make_episode())
    ENGINES["one by one"].outcome(learner, make_episode())


@each_engine
def test_an_operation_without_second_derivative_names_the_order(engine) -> None:
    learner = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(), Rows(nn.Hardsigmoid))
    with pytest.raises(
        ConfigError, match=r"^inner\.order: the network calls an operation without second derivative \(.*\); replace it, .*inner\.order: first$"
    ):
        ENGINES[engine].outcome(learner, make_episode())
    first = dataclasses.replace(learner, order=First())
    assert all(g.isfinite().all() for g in ENGINES[engine].outcome(first, make_episode()).gradients.values())
