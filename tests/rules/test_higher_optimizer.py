"""Optimisers of ``higher`` in its engine; oracles: this library's exact SGD, finite differences, torch.optim, and refusals."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch

from metaflowkit.composition.learner import Interface, build_learner
from metaflowkit.config.pipeline import read
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import First
from metaflowkit.rules.higher_optimizer import IGNORED, OPTIONS, HigherOptimizer
from metaflowkit.rules.sgd import SGD
from tests.oracles import finite_difference, make_episode, make_learner, relative

ENGINE = HigherEngine()
CASES = [
    HigherOptimizer("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    HigherOptimizer("Adam", {"lr": 0.3, "eps": 0.1, "betas": [0.5, 0.7]}),
    HigherOptimizer("Adadelta", {"lr": 1.0, "eps": 0.01}),
    HigherOptimizer("Adagrad", {"lr": 0.3, "initial_accumulator_value": 0.1}),
    HigherOptimizer("Adamax", {"lr": 0.2, "eps": 0.1}),
    HigherOptimizer("ASGD", {"lr": 0.2}),
    HigherOptimizer("RMSprop", {"lr": 0.1, "eps": 0.1}),
    HigherOptimizer("Rprop", {"lr": 0.01}),
]
each = pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.kind.__name__)


@each
def test_gradients_equal_finite_differences(rule) -> None:
    learner, episode = make_learner(rule, CrossEntropy(), QueryLoss(), Prototype(temperature=1.0), steps=3), make_episode()
    for differences, exact in finite_difference(ENGINE, learner, episode, h=1e-5):
        assert exact == pytest.approx(differences, rel=2e-5, abs=1e-9)


@each
def test_steps_equal_those_of_torch(rule) -> None:
    learner, episode = make_learner(rule, CrossEntropy(), QueryLoss(), Prototype(), steps=3), make_episode(tasks=1)
    adapted = ENGINE.adapt(learner, episode.support, episode).params
    model = copy.deepcopy(learner.model)
    optimizer = rule.over(list(model.parameters()))
    shown = type(episode.support)(episode.support.x[0], episode.support.y[0])
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(shown, None, 3).logits, shown.y).backward()
        optimizer.step()
    if rule.kind is torch.optim.Adam:  # its eps stands elsewhere, as the documentation says
        assert all((adapted[name][0] - p.detach()).abs().max() > 1e-4 for name, p in model.named_parameters())
        return
    close = 1e-7 if rule.kind in (torch.optim.ASGD, torch.optim.Adagrad) else 1e-11  # a step size in float32 in torch or in higher
    for name, p in model.named_parameters():
        torch.testing.assert_close(adapted[name][0], p.detach(), rtol=close, atol=close)


@pytest.mark.parametrize("objective", [QueryLoss(), BootstrappedKL(3)], ids=["query", "bootstrap"])
@pytest.mark.parametrize("more", [{}, {"order": First()}, {"remat": True}], ids=["exact", "first", "remat"])
def test_sgd_equals_this_librarys(objective, more) -> None:
    episode = make_episode()
    mine, theirs = (make_learner(rule, Contrastive(), objective, Prototype(), steps=3, **more) for rule in (SGD(lr=0.1, momentum=0.9, nesterov=True), CASES[0]))
    assert relative(ENGINE.outcome(theirs, episode).gradients, ENGINE.outcome(mine, episode).gradients) < 1e-12


@each
def test_rematerialised_gradients_are_equal(rule) -> None:
    learner, episode = make_learner(rule, CrossEntropy(), QueryLoss(), Prototype(), steps=3), make_episode(tasks=1)
    again = ENGINE.outcome(dataclasses.replace(learner, remat=True), episode).gradients
    assert relative(again, ENGINE.outcome(learner, episode).gradients) < 1e-12


@pytest.mark.parametrize(
    ("optimizer", "options", "says"),
    [
        ("SGD", {"lr": 0.1, "maximize": True}, "higher silently ignores 'maximize' of torch.optim.SGD; leave it out"),
        ("Adam", {"decoupled_weight_decay": True}, "higher silently ignores 'decoupled_weight_decay' of torch.optim.Adam"),
        ("Adam", {"beta": 0.1}, "torch.optim.Adam has no option 'beta'; use one of lr, betas, eps"),
    ],
)
def test_options_that_would_be_ignored_are_refused(optimizer, options, says) -> None:
    with pytest.raises(ValueError, match=says):
        HigherOptimizer(optimizer, options)


@pytest.mark.parametrize("optimizer", list(OPTIONS))
def test_the_options_are_those_of_torch(optimizer) -> None:
    parameters = set(inspect.signature(getattr(torch.optim, optimizer)).parameters) - {"params"}
    assert set(OPTIONS[optimizer]) == parameters - set(IGNORED)


def test_an_option_that_would_be_ignored_may_be_off() -> None:
    assert HigherOptimizer("SGD", {"lr": 0.1, "foreach": False}).options == {"lr": 0.1}


def test_another_engine_is_refused_by_hand_too() -> None:
    learner = make_learner(HigherOptimizer("SGD", {"lr": 0.1}), Contrastive(), QueryLoss(), Prototype())
    with pytest.raises(ConfigError, match=r"inner\.engine: the optimisers of higher run in its engine alone"):
        VectorizedEngine(chunk=1, workers=1).outcome(learner, make_episode())


def test_from_a_pipeline(write) -> None:
    text = "dataset: glyphs\nmodel: {backbone: {name: conv4, width: 2}}\ninner: {rule: {name: higher, optimizer: Rprop, options: {lr: 0.01}}}\n"
    learner = build_learner(read(write(text)), Interface((1, 16, 16), 3), torch.device("cpu"))
    assert isinstance(learner.engine, HigherEngine)
    assert learner.engine.description == "higher, task by task (its own optimisers run nowhere else)"
    with pytest.raises(ConfigError, match=r"inner\.engine: the optimisers of higher run in its engine alone; set inner\.engine: higher, or auto"):
        build_learner(read(write(text), ["inner.engine=vectorized"]), Interface((1, 16, 16), 3), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"inner\.rule: Invalid learning rate: -1"):
        build_learner(read(write(text), ["inner.rule.options={lr: -1}"]), Interface((1, 16, 16), 3), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"inner\.learn: the rule 'higher' has no|inner\.learn\.lr: the rule 'higher' has no such number"):
        build_learner(read(write(text), ["inner.learn={lr: all}"]), Interface((1, 16, 16), 3), torch.device("cpu"))
