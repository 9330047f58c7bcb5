"""A meta-learner from Python: any module, losses and tasks, against gradients written out with torch.autograd."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import metaflowkit as mfk
from metaflowkit.config.schema import Range
from metaflowkit.engines import HigherEngine, VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.rules.learned import Learned, LearnedSettings

ENGINES = {"auto": "auto", "higher": HigherEngine(), "one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "vmap": VectorizedEngine()}
each_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Two(nn.Module):
    """Two inputs, a dictionary as output, and a parameter beside the network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.double()

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"out": self.gain * self.net(left) - right.square()}


def regression(call, batch) -> Tensor:
    return (call(batch["x"].left, batch["x"].right)["out"] - batch["y"]).square().mean()


def tasks(count: int = 5) -> mfk.Episode:
    torch.manual_seed(1)

    def examples(n: int):
        return {"x": Pair(*(torch.randn(count, n, size, dtype=torch.float64) for size in (3, 2))), "y": torch.randn(count, n, 2, dtype=torch.float64)}

    return mfk.Episode(examples(4), examples(6))


def task(batch, t: int):
    return {"x": Pair(batch["x"].left[t], batch["x"].right[t]), "y": batch["y"][t]}


def by_hand(model: nn.Module, episode: mfk.Episode, steps: int, lr: float, moves, first: bool = False) -> dict[str, Tensor]:
    """Mean gradient of the query loss after plain gradient steps."""
    meta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    count = len(episode.support["y"])
    for t in range(count):
        params = dict(meta)
        for _ in range(steps):
            loss = regression(lambda *x, p=params: functional_call(model, p, x), task(episode.support, t))
            names = [name for name in params if moves(name)]
            gradients = torch.autograd.grad(loss, [params[n] for n in names], create_graph=not first)
            params = params | {n: params[n] - lr * g for n, g in zip(names, gradients)}
        total = total + regression(lambda *x, p=params: functional_call(model, p, x), task(episode.query, t))
    return dict(zip(meta, torch.autograd.grad(total / count, list(meta.values()))))


@each_engine
@pytest.mark.parametrize(("order", "adapt"), [("exact", None), ("first", None), ("exact", ["net.*"])])
def test_nested_tasks_and_outputs_of_any_form(engine, order, adapt) -> None:
    model, episode = Two(), tasks()
    learner = mfk.meta_learner(
        model, inner_loss=regression, outer_loss=regression, rule=mfk.rules.SGD(lr=0.1), steps=3, order=order, engine=engine, adapt=adapt
    )
    outcome = learner.outcome(episode)
    expected = by_hand(model, episode, 3, 0.1, lambda name: adapt is None or name.startswith("net."), order == "first")
    assert outcome.gradients.keys() == expected.keys()
    for name, g in expected.items():
        torch.testing.assert_close(outcome.gradients[name], g, rtol=1e-10, atol=1e-13)
    outcome.to_grad(model)
    assert all(torch.equal(p.grad, outcome.gradients[name]) for name, p in model.named_parameters())


@each_engine
def test_adapted_models_are_read_by_a_function(engine) -> None:
    model, episode = Two(), tasks()
    learner = mfk.meta_learner(model, inner_loss=regression, outer_loss=regression, rule=mfk.rules.SGD(lr=0.1), steps=2, engine=engine)
    adaptation = learner.adapt(episode.support, episode, lambda call, task: {"loss": regression(call, task.query)})
    torch.testing.assert_close(adaptation.read["loss"].mean(), learner.outcome(episode).value)
    for t in range(5):
        params = {name: p[t] for name, p in adaptation.params.items()}
        expected = regression(lambda *x, p=params: functional_call(model, p, x), task(episode.query, t))
        torch.testing.assert_close(adaptation.read["loss"][t], expected)
    assert learner.adapt(episode.support, episode).read == ()


@each_engine
def test_examples_drawn_with_the_parameters_at_hand(engine) -> None:
    """The support holds noise, and each inner step draws its own examples around what the model says; no gradient flows through the drawing."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.7)
    noise = torch.randn(3, 4, 6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # tasks, draws, examples

    def sample(call, batch, draw):
        x = batch[draw]
        return x, call(x) + 1 + x

    def loss(call, batch):
        x, y = batch
        return (call(x) - y).square().mean()

    learner = mfk.meta_learner(model, inner_loss=loss, outer_loss=loss, rule=mfk.rules.SGD(lr=0.1), steps=2, engine=engine, sample=sample)
    outcome = learner.outcome(mfk.Episode(noise, noise.flip(1)))
    values, gradients = [], []
    for own in noise:
        start = w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        for k in range(2):
            x = own[k]
            y = (w * x + 1 + x).detach()
            w = w - 0.1 * torch.autograd.grad((w * x - y).square().mean(), w, create_graph=True)[0]
        x = own.flip(0)[0]
        value = (w * x - (w * x + 1 + x).detach()).square().mean()
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, start)[0])
    torch.testing.assert_close(outcome.value, torch.stack(values).mean())
    torch.testing.assert_close(outcome.gradients["weight"].squeeze(), torch.stack(gradients).mean())


@each_engine
def test_a_bootstrapped_objective_on_a_plain_classifier_with_learned_rates(engine) -> None:
    class Classifier(nn.Module):
        """The rule's settings are a submodule of what is learned, and no part of its forward."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
            shapes = {name: p.shape for name, p in self.named_parameters()}
            self.rule = LearnedSettings([Learned("lr", 0.2, Range(0, above=True), per="layer")], shapes, steps=2)
            self.double()

        def forward(self, x):
            return self.net(x)

    torch.manual_seed(0)
    network = Classifier()
    x, y = torch.randn(3, 6, 4, dtype=torch.float64), torch.arange(6).remainder(3).expand(3, -1)
    learner = mfk.meta_learner(
        network,
        inner_loss=lambda call, batch: F.cross_entropy(call(batch[0]), batch[1]),
        objective=mfk.objectives.BootstrappedKL(delta=2),
        rule=mfk.rules.SGD(lr=0.2),
        steps=2,
        engine=engine,
    )
    outcome = learner.outcome(mfk.Episode((x, y), (x.flip(1), y.flip(1))))
    assert set(outcome.gradients) == set(dict(network.named_parameters()))
    assert 0 <= outcome.metrics["accuracy"] <= 1
    reference = dataclasses.replace(learner, engine=HigherEngine()).outcome(mfk.Episode((x, y), (x.flip(1), y.flip(1))))
    for name, g in reference.gradients.items():
        torch.testing.assert_close(outcome.gradients[name], g, rtol=1e-9, atol=1e-12)
    assert outcome.gradients["rule.lr/net/0"].abs().sum() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": len}, r"^model: must be a torch.nn.Module, got builtin_function_or_method$"),
        ({"outer_loss": None}, r"^outer_loss: give it or objective, one of the two$"),
        ({"objective": mfk.objectives.QueryLoss()}, r"^outer_loss: give it or objective, one of the two$"),
        ({"steps": 1.5}, r"^steps: must be a whole number of at least 0, got 1.5$"),
        ({"others": "none"}, r"^others: must be 'shared' or 'frozen', got 'none'$"),
        ({"inner_loss": 3}, r"^inner_loss: must be callable, got int$"),
        ({"model": nn.ReLU()}, r"^model: must have parameters, got ReLU without any"),
        ({"inner_loss": lambda call: 0.0}, r"^inner_loss: must take \(call, batch\), got .*<lambda>\(call\); change it$"),
        ({"sample": lambda call, batch: batch}, r"^sample: must take \(call, batch, draw\), got .*<lambda>\(call, batch\); change it$"),
        (
            {"outer_loss": None, "objective": lambda adapted: 0.0},
            r"^objective: objective 'function' must define __call__\(adapted, task\), and that of .* takes \(adapted\)",
        ),
        ({"rule": torch.optim.SGD}, r"^rule: must be an object, got the class SGD; write SGD\(\.\.\.\)$"),
        ({"rule": object()}, r"^rule: rule 'object' must define init\(params\), and builtins.object does not; add it$"),
        ({"order": mfk.orders.First}, r"^order: must be an object, got the class First; write First\(\.\.\.\)$"),
        ({"order": mfk.orders.Truncate(last=5), "steps": 2}, r"^order: last must be at most steps, 2, got 5; lower it or raise steps$"),
        ({"order": "reptile", "remat": True}, r"^remat: does nothing in this order, which stores no steps; leave it out$"),
        ({"proximal": -1.0}, r"^proximal: must be a number of at least 0, got -1.0$"),
        ({"proximal": "a"}, r"^proximal: must be a number of at least 0, got 'a'$"),
        ({"order": "exakt"}, r"^order: there is no order 'exakt'; did you mean 'exact'\?, or give an object$"),
        ({"order": object()}, r"^order: order 'object' must define gradient\(loop, meta\), and builtins.object does not; add it$"),
        ({"order": "implicit"}, r"^proximal: must be above 0 for this order, got 0$"),
        ({"rule": mfk.rules.HigherOptimizer("Adam"), "engine": "vectorized"}, r"^engine: the optimisers of higher run in its engine alone; "),
        ({"engine": "fast"}, r"^engine: there is no engine 'fast'; .*, or give an object$"),
        ({"adapt": ["net.2.*", "head.*"]}, r"^adapt: matches no parameter, got 'head\.\*'; "),
        ({"adapt": "net.*"}, r"^adapt: must be a list of patterns, got the text 'net\.\*'; write \['net\.\*'\]$"),
    ],
)
def test_what_breaks_its_contract_is_refused_by_name(wrong, message) -> None:
    arguments = {"model": Two(), "inner_loss": regression, "outer_loss": regression, "rule": mfk.rules.SGD(), "steps": 1} | wrong
    with pytest.raises(ConfigError, match=message):
        mfk.meta_learner(arguments.pop("model"), **arguments)


class Broken(mfk.rules.SGD):
    """A rule whose ``update`` is a function that is given, and so is its state."""

    def __init__(self, update=None, state=None) -> None:
        super().__init__(lr=0.1)
        self.broken, self.state = update, {} if state is None else state

    def init(self, params):
        return self.state

    def update(self, grads, state, params):
        return self.broken(params) if self.broken else (params, state)


class Returning(mfk.orders.Order):
    """An order that returns what is given."""

    second = False

    def __init__(self, result) -> None:
        self.result = result

    def gradient(self, loop, meta):
        return self.result(loop.trained(meta))


def constant(call, batch):
    return torch.ones(())


def unconnected(call, batch):
    return call(*batch["x"])["out"].detach().sum()


def rows(call, batch):
    return call(*batch["x"])["out"]


SCALAR = r"must return a floating-point tensor of no dimension, got "


@each_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner_loss": rows}, rf"^inner loss: rows {SCALAR}a tensor \[4, 2\]; reduce it with such as .mean\(\)$"),
        ({"inner_loss": lambda call, batch: 1.0}, rf"^inner loss: .*<lambda> {SCALAR}float; "),
        ({"inner_loss": lambda call, batch: torch.zeros((), dtype=torch.int64)}, rf"^inner loss: .*<lambda> {SCALAR}a tensor \[\] of int64; "),
        ({"inner_loss": constant}, r"^inner loss: constant depends on no parameter that the inner loop moves, so that nothing would be learned; compute it"),
        ({"inner_loss": unconnected}, r"^inner loss: unconnected depends on no parameter that the inner loop moves"),
        ({"outer_loss": rows}, rf"^objective: rows {SCALAR}a tensor \[\d+, 2\]"),
        ({"outer_loss": constant}, r"^objective: constant depends on no parameter that the outer loop moves"),
        ({"outer_loss": unconnected, "order": "first"}, r"^objective: unconnected depends on no parameter that the outer loop moves"),
        (
            {"outer_loss": None, "objective": lambda adapted, task: torch.zeros(())},
            r"^objective: .* must return \(value, \{name: metric\}\), got a tensor \[\]",
        ),
        (
            {"outer_loss": None, "objective": lambda adapted, task: (sum(p.sum() for p in adapted.params.values()), {"n": 3.0})},
            r"^objective: .* must give as metric 'n' a floating-point tensor of no dimension, got float",
        ),
        ({"rule": Broken(state=3)}, r"^rule: Broken must have a state of nested dicts of tensors and numbers, got int; return \{\} from init for none$"),
        ({"rule": Broken(lambda params: params)}, r"^rule: Broken must return \(params, state\) from update, got dict$"),
        ({"rule": Broken(lambda params: (params, None))}, r"^rule: Broken must have a state of nested dicts"),
        ({"rule": Broken(lambda params: ({}, {}))}, r"^rule: Broken must return from update a tensor \[.*\] for .*, got none$"),
        (
            {"rule": Broken(lambda params: ({n: p.sum() for n, p in params.items()}, {}))},
            r"^rule: Broken must return from update a tensor \[.+\] for .*, got a tensor \[\]$",
        ),
        ({"rule": Broken(lambda params: ({**params, "more": torch.ones(1)}, {}))}, r"^rule: Broken must return nothing from update but .*, got more as well$"),
        ({"order": Returning(lambda trained: trained)}, r"^order: Returning must return \(gradients, value, metrics\) from gradient, got dict$"),
        ({"order": Returning(lambda trained: ({}, torch.ones(()), {}))}, r"^order: Returning must return as gradients a tensor \[.*\] for .*, got none$"),
        (
            {"order": Returning(lambda trained: (trained, 1.0, {}))},
            r"^order: Returning must return as value a floating-point tensor of no dimension, got float",
        ),
    ],
)
def test_results_of_the_wrong_kind_are_refused(engine, change, message) -> None:
    learner = mfk.meta_learner(Two(), **{"inner_loss": regression, "outer_loss": regression, "rule": mfk.rules.SGD(), "steps": 1, "engine": engine} | change)
    with pytest.raises(ConfigError, match=message):
        learner.outcome(tasks())


def test_an_engine_must_return_an_outcome() -> None:
    class Empty(HigherEngine):
        def outcome(self, learner, episode):
            return None

    learner = mfk.meta_learner(Two(), inner_loss=regression, outer_loss=regression, rule=mfk.rules.SGD(), steps=1, engine=Empty())
    with pytest.raises(ConfigError, match=r"^engine: .*Empty must return an Outcome from outcome, got NoneType$"):
        learner.outcome(tasks())


def test_examples_that_are_drawn_must_be_tensors() -> None:
    learner = mfk.meta_learner(
        Two(), inner_loss=regression, outer_loss=regression, rule=mfk.rules.SGD(), steps=1, sample=lambda call, batch, draw: {"x": "text"}
    )
    with pytest.raises(ConfigError, match=r"^sample: .*<lambda> returned examples that must hold tensors in nested tuples, lists and dicts, got str$"):
        learner.outcome(tasks())


@each_engine
@pytest.mark.parametrize(
    ("support", "message"),
    [
        ({"x": 3}, r"^episode\.(support|query): must hold tensors in nested tuples, lists and dicts, got int$"),
        (torch.zeros(4, 3), r"^episode: every tensor needs the same leading axis of tasks, got support \[4, 3\], query \[5, 3\]; stack"),
        (torch.zeros(()), r"^episode: every tensor needs the same leading axis of tasks, got support \[\], query \[5, 3\]; stack"),
    ],
)
def test_episodes_of_the_wrong_form_are_refused(engine, support, message) -> None:
    learner = mfk.meta_learner(Two(), inner_loss=regression, outer_loss=regression, rule=mfk.rules.SGD(), steps=1, engine=engine)
    for call in (learner.outcome, lambda episode: learner.adapt(episode.support, episode)):
        with pytest.raises(ValueError, match=message):
            call(mfk.Episode(support, torch.zeros(5, 3)))


def test_a_model_without_a_gradient_and_inner_steps_that_move_nothing() -> None:
    model = Two().requires_grad_(False)
    arguments = {"inner_loss": regression, "outer_loss": regression, "rule": mfk.rules.SGD(), "steps": 1}
    with pytest.raises(ConfigError, match=r"^model: has no parameter that requires a gradient"):
        mfk.meta_learner(model, **arguments)
    model.gain.requires_grad_()
    with pytest.raises(ConfigError, match=r"^adapt: the inner steps move nothing"):
        mfk.meta_learner(model, adapt=["net.*"], **arguments)


class Wider(mfk.rules.SGD):
    """One more keyword; the others are those of the class it derives from."""

    def __init__(self, note: str = "", **settings) -> None:
        super().__init__(**settings)


def test_learned_settings_of_a_derived_rule_and_what_is_refused() -> None:
    model, rule = nn.Linear(2, 1), Wider(lr=0.3, momentum=0.5)
    learned = mfk.learned_settings(rule, model, steps=3, per_step=True, lr="parameter", momentum="all")
    assert {name: p.shape for name, p in learned.named_parameters()} == {"lr/weight": (3,), "lr/bias": (3,), "momentum": (3,)}
    torch.testing.assert_close(learned.rule_at(rule, dict(learned.named_parameters()), 0).settings["lr"]["weight"], torch.tensor(0.3))
    for wrong, message in (
        ({"lrr": "all"}, r"^lrr: the rule Wider has no such setting; did you mean 'lr'\?$"),
        ({"lr": "tensor"}, r"^lr: must be one of all, layer, parameter, element, got 'tensor'$"),
        ({"weight_decay": "all"}, r"weight_decay is learned above 0, got 0 to start from; choose a start above 0, or do not learn it"),
    ):
        with pytest.raises(ConfigError, match=message):
            mfk.learned_settings(rule, model, steps=3, **wrong)
