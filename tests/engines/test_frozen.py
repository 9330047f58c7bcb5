"""Parameters with requires_grad=False: neither loop moves them, in every engine and order, and no gradient bears their name."""

from __future__ import annotations

import itertools

import pytest
import torch

from metaflowkit.engines.auto import auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.heads.linear import Linear
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.rules.adam import Adam
from metaflowkit.rules.higher_optimizer import HigherOptimizer
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, finite_difference, make_episode, make_learner, relative, scores

ENGINES = {"one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "all at once": VectorizedEngine(), "higher": HigherEngine()}
WAYS = {
    "exact": {"order": Exact()},
    "first": {"order": First()},
    "truncate": {"order": Truncate(1)},
    "reptile": {"order": Reptile()},
    "implicit": {"order": Implicit(), "proximal": 1.0},
    "remat": {"remat": True},
    "proximal": {"proximal": 1.0},
}
FROZEN = {"backbone.layers.1.bias", "head.bias"}


def parts_of(rule=None, objective=None, **more):
    torch.manual_seed(5)
    backbone = Smooth()
    return make_learner(rule or SGD(lr=0.3, momentum=0.5), CrossEntropy(), objective or QueryLoss(), Linear(backbone.features, 3), backbone, **more)


def frozen(learner):
    for name, p in learner.model.named_parameters():
        p.requires_grad_(name not in FROZEN)
    return learner


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("way", list(WAYS))
def test_they_are_constants_of_the_function(way, engine) -> None:
    """The same as with their names in ``frozen`` and left out of what adapts, and, where it is the gradient of a value, as finite differences."""
    learner, episode = frozen(parts_of(**WAYS[way])), make_episode()
    names = {name for name, _ in learner.model.named_parameters()}
    same = parts_of(**WAYS[way], adapts=frozenset(names - FROZEN), frozen=frozenset(FROZEN))
    outcome, reference = ENGINES[engine].outcome(learner, episode), ENGINES[engine].outcome(same, episode)
    assert outcome.gradients.keys() == reference.gradients.keys() == names - FROZEN
    assert relative(outcome.gradients, reference.gradients) < 1e-12
    if way in ("exact", "remat", "proximal") and engine in ("one by one", "higher"):
        for differences, exact in finite_difference(ENGINES[engine], learner, episode, directions=1):
            assert exact == pytest.approx(differences, rel=1e-6)
    adapted = ENGINES[engine].adapt(learner, episode.support, episode)
    for name, p in learner.model.named_parameters():
        assert torch.equal(adapted.params[name], p.expand_as(adapted.params[name])) is (name in FROZEN), name


@pytest.mark.parametrize("way", list(WAYS))
def test_freezing_changes_the_gradient_of_the_rest(way) -> None:
    """So that the comparison above compares something."""
    episode = make_episode()
    left, right = (ENGINES["one by one"].outcome(learner, episode).gradients for learner in (frozen(parts_of(**WAYS[way])), parts_of(**WAYS[way])))
    assert relative({name: right[name] for name in left}, left) > 1e-4


@pytest.mark.parametrize(
    ("rule", "remat"), list(itertools.product([SGD(lr=0.3), Adam(lr=0.1, eps=0.1)], [False, True])), ids=["sgd", "sgd, remat", "adam", "adam, remat"]
)
def test_a_bootstrapped_target_leaves_them_too(rule, remat) -> None:
    learner, episode = frozen(parts_of(rule, BootstrappedKL(2), remat=remat)), make_episode()
    by_engine = [engine.outcome(learner, episode).gradients for engine in ENGINES.values()]
    assert all(gradients.keys() == by_engine[0].keys() and relative(gradients, by_engine[0]) < 1e-9 for gradients in by_engine)
    assert not FROZEN & by_engine[0].keys()


def test_an_optimiser_of_higher_leaves_them_too() -> None:
    learner, episode = frozen(parts_of(HigherOptimizer("SGD", {"lr": 0.3, "momentum": 0.5}))), make_episode()
    reference = ENGINES["one by one"].outcome(frozen(parts_of()), episode).gradients
    assert relative(HigherEngine().outcome(learner, episode).gradients, reference) < 1e-9


@pytest.mark.parametrize("engine", list(ENGINES))
def test_they_may_be_of_a_sort_without_gradient(engine) -> None:
    """Whole numbers, as in a quantised layer."""

    class Counted(Smooth):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2), requires_grad=False)

        def forward(self, x):
            return self.scale * super().forward(x)

    backbone = Counted()
    learner = make_learner(SGD(lr=0.3), CrossEntropy(), QueryLoss(), Linear(backbone.features, 3), backbone)
    assert "backbone.scale" not in ENGINES[engine].outcome(learner, make_episode()).gradients
    assert ENGINES[engine].adapt(learner, make_episode().support, make_episode()).params["backbone.scale"].tolist() == [2, 2]


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_a_network_of_which_all_is_frozen_can_be_measured(engine) -> None:
    learner, episode = parts_of(steps=0), make_episode()
    expected = scores(ENGINES["one by one"], learner, episode)
    learner.model.requires_grad_(False)
    chosen = auto(learner.model) if engine == "auto" else ENGINES[engine]
    torch.testing.assert_close(scores(chosen, learner, episode), expected)
    assert chosen.outcome(learner, episode).gradients == {}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_inner_loss_of_frozen_parameters_alone_is_refused(engine) -> None:
    """The features do not depend on the head, which alone is left to adapt."""
    backbone = Smooth().requires_grad_(False)
    learner, episode = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Linear(backbone.features, 3), backbone), make_episode()
    for call in (lambda: ENGINES[engine].outcome(learner, episode), lambda: ENGINES[engine].adapt(learner, episode.support, episode)):
        with pytest.raises(ConfigError, match="^inner loss: Contrastive depends on no parameter that the inner loop moves"):
            call()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_inner_steps_without_anything_to_move_change_nothing(engine) -> None:
    """Which a build refuses, and freezing after it brings about."""
    learner, episode = parts_of(adapts=frozenset({"head.weight", "head.bias"})), make_episode()
    learner.model.head.requires_grad_(False)
    still = parts_of(steps=0)
    torch.testing.assert_close(ENGINES[engine].outcome(learner, episode).value, ENGINES["one by one"].outcome(still, episode).value)
