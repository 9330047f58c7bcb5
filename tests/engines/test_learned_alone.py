"""What the outer loop learns beside an initialisation that stays: weights of examples and strengths of augmentation, in every engine and order.

Oracles: central finite differences of the value, the engines against each other, and the gradients of the same learner in which everything is learned.
"""

from __future__ import annotations

import pytest
import torch

from metaflowkit.augment.learned import LearnedAffine
from metaflowkit.composition.few_shot import ModelLoss
from metaflowkit.doctor.plain_loop import plain_outcome
from metaflowkit.engines.auto import auto
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.losses.example_weights import ExampleWeights
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model
from metaflowkit.objectives import BootstrappedKL, QueryLoss
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.rules import SGD, Adam
from tests.oracles import Smooth, finite_difference, make_episode, relative

ENGINES = {"one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "all at once": VectorizedEngine(), "higher": HigherEngine()}
WAYS = {
    "exact": {},
    "remat": {"remat": True},
    "truncate": {"order": Truncate(1)},
    "first": {"order": First()},
    "proximal": {"proximal": 0.5},
    "implicit": {"order": Implicit(), "proximal": 1.0},
    "reptile": {"order": Reptile()},
}
LEARNED = {"loss.weight"}


def weighted(rule=None, objective=None, learns=frozenset(LEARNED), **more) -> MetaLearner:
    """A learner of the weights of six support examples, which do not start equal."""
    torch.manual_seed(5)
    backbone = Smooth()
    model = Model(backbone, Linear(backbone.features, 3), loss=ExampleWeights(6)).double()
    with torch.no_grad():
        model.loss.weight.normal_()
    adapts = frozenset(name for name, _ in model.named_parameters() if not name.startswith("loss."))
    engine = auto(model, rule)
    return MetaLearner(
        model,
        rule or SGD(lr=0.3, momentum=0.5),
        ModelLoss(True),
        objective or QueryLoss(),
        3,
        engine,
        adapts=adapts,
        learns=learns,
        arguments=Model.arguments,
        **{"order": Exact(), **more},
    )


def test_an_order_that_passes_them_no_gradient_is_refused() -> None:
    learner = weighted(order=First())
    with pytest.raises(ConfigError, match="^objective: QueryLoss depends on no parameter that the outer loop moves"):
        learner.outcome(make_episode())


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("way", [way for way in WAYS if way != "first"])
def test_only_they_have_gradients_and_the_others_adapt_all_the_same(way, engine) -> None:
    learner, whole, episode = weighted(**WAYS[way]), weighted(learns=None, **WAYS[way]), make_episode()
    outcome, reference = ENGINES[engine].outcome(learner, episode), ENGINES[engine].outcome(whole, episode)
    assert outcome.gradients.keys() == LEARNED
    torch.testing.assert_close(outcome.gradients["loss.weight"], reference.gradients["loss.weight"], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(outcome.value, reference.value)
    if way in ("exact", "remat", "proximal"):
        assert outcome.gradients["loss.weight"].norm() > 1e-5
        assert relative(outcome.gradients, plain_outcome(learner, episode).gradients) < 1e-9
        if engine in ("one by one", "higher"):
            for differences, exact in finite_difference(ENGINES[engine], learner, episode, directions=1):
                assert exact == pytest.approx(differences, rel=1e-6)
    adapted = ENGINES[engine].adapt(learner, episode.support, episode).params
    for name, p in learner.model.named_parameters():
        assert torch.equal(adapted[name], p.expand_as(adapted[name])) is (name in LEARNED), name


@pytest.mark.parametrize("rule", [SGD(lr=0.3), Adam(lr=0.1, eps=0.1)], ids=["sgd", "adam"])
@pytest.mark.parametrize("remat", [False, True])
def test_a_bootstrapped_target_too(rule, remat) -> None:
    learner, episode = weighted(rule, BootstrappedKL(2), remat=remat), make_episode()
    gradients = [engine.outcome(learner, episode).gradients for engine in ENGINES.values()]
    for other in gradients[1:]:
        assert relative(other, gradients[0]) < 1e-9
    assert gradients[0]["loss.weight"].norm() > 1e-8


def augmenting(**more) -> MetaLearner:
    """A learner of the strengths of a warp of the support images, and of the initialisation."""
    torch.manual_seed(5)
    backbone = Smooth()
    model = Model(backbone, Linear(backbone.features, 3), loss=CrossEntropy(), augment=LearnedAffine((1, 8, 8), copies=2)).double()
    adapts = frozenset(name for name, _ in model.named_parameters() if not name.startswith("augment."))
    return MetaLearner(model, SGD(lr=0.3), ModelLoss(True), QueryLoss(), 2, auto(model), adapts=adapts, arguments=Model.arguments, **more)


@pytest.mark.parametrize("remat", [False, True])
def test_strengths_of_augmentation(remat) -> None:
    """One task, for which every engine draws the same; smooth images, between whose pixels the warp interpolates linearly."""
    learner, episode = augmenting(remat=remat), make_episode(tasks=1)
    smooth = torch.nn.functional.avg_pool2d(episode.support.x.flatten(0, 1), 3, 1, 1).reshape(episode.support.x.shape)
    episode = episode._replace(support=episode.support._replace(x=smooth))
    outcomes = {name: engine.outcome(learner, episode) for name, engine in ENGINES.items()}
    reference = outcomes["higher"].gradients
    strengths = [name for name in reference if name.startswith("augment.")]
    assert len(strengths) == 4
    assert all(reference[name].abs() > 1e-8 for name in strengths)
    for outcome in outcomes.values():
        assert relative(outcome.gradients, reference) < 1e-9
    assert relative(reference, plain_outcome(learner, episode).gradients) < 1e-9
    for differences, exact in finite_difference(ENGINES["one by one"], learner, episode, directions=1, h=1e-6):
        assert exact == pytest.approx(differences, rel=1e-4)
