"""Every update rule: torch.optim over 20 steps in float64, gradients in start and settings by finite differences, exact zeros."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import RULES

CASES = [
    ("sgd", {"lr": 0.1}, torch.optim.SGD, {}),
    ("sgd", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.2}, torch.optim.SGD, {}),
    ("sgd", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, torch.optim.SGD, {}),
    ("adam", {"lr": 0.01}, torch.optim.Adam, {}),
    ("adam", {"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 1e-3, "weight_decay": 0.2}, torch.optim.Adam, {}),
    ("adamw", {"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 1e-3, "weight_decay": 0.2}, torch.optim.AdamW, {}),
    ("rmsprop", {"lr": 0.01}, torch.optim.RMSprop, {}),
    ("rmsprop", {"lr": 0.05, "alpha": 0.6, "eps": 0.1, "momentum": 0.7, "centered": True, "weight_decay": 0.1}, torch.optim.RMSprop, {}),
    ("adagrad", {"lr": 0.1}, torch.optim.Adagrad, {}),
    ("adagrad", {"lr": 0.1, "lr_decay": 0.2, "initial": 0.3, "eps": 1e-3, "weight_decay": 0.1}, torch.optim.Adagrad, {"initial": "initial_accumulator_value"}),
    ("adadelta", {"lr": 1.0, "rho": 0.7, "eps": 1e-2, "weight_decay": 0.1}, torch.optim.Adadelta, {}),
    ("adamax", {"lr": 0.05, "beta1": 0.6, "beta2": 0.8, "eps": 1e-3, "weight_decay": 0.1}, torch.optim.Adamax, {}),
    ("nadam", {"lr": 0.05, "beta1": 0.6, "beta2": 0.8, "eps": 1e-3, "momentum_decay": 0.1, "weight_decay": 0.1}, torch.optim.NAdam, {}),
]  # fmt: skip
each_case = pytest.mark.parametrize(("name", "settings", "oracle", "renamed"), CASES, ids=lambda v: str(v) if isinstance(v, (str, dict)) else "")
H = 1e-5


def start() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"w": torch.randn(4, 3, generator=generator, dtype=torch.float64), "b": torch.randn(3, generator=generator, dtype=torch.float64)}


def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)
    return (torch.tanh(x @ params["w"] + params["b"]) - 0.3).square().sum()


def run(rule, params, steps, create_graph=False):
    state = rule.init(params)
    for _ in range(steps):
        grads = dict(zip(params, torch.autograd.grad(loss(params), list(params.values()), create_graph=create_graph)))
        params, state = rule.update(grads, state, params)
        if not create_graph:
            params = {n: p.detach().requires_grad_() for n, p in params.items()}
    return params


def built(name, settings):
    return RULES.build(Choice(name, settings))


def test_every_rule_is_covered() -> None:
    assert {name for name, *_ in CASES} == set(RULES.entries()) - {"higher"}  # which is tried with its engine


@pytest.fixture
def double():
    """float64 as the default type: torch.optim.NAdam keeps a product of scalars in it."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@each_case
def test_twenty_steps_equal_those_of_torch(name, settings, oracle, renamed, double) -> None:
    params_after = run(built(name, settings), {n: p.requires_grad_() for n, p in start().items()}, 20)
    expected = {n: p.requires_grad_() for n, p in start().items()}
    options = {renamed.get(key, key): value for key, value in settings.items() if not key.startswith("beta")}
    if "beta1" in settings:
        options["betas"] = (settings["beta1"], settings["beta2"])
    optimizer = oracle(list(expected.values()), **options)
    for _ in range(20):
        optimizer.zero_grad()
        loss(expected).backward()
        optimizer.step()
    for n in expected:
        torch.testing.assert_close(params_after[n], expected[n], rtol=1e-12, atol=1e-12)


@each_case
def test_the_gradient_through_three_steps_equals_finite_differences(name, settings, oracle, renamed) -> None:
    rule = built(name, settings)
    start_at = {n: p.requires_grad_() for n, p in start().items()}
    exact = torch.autograd.grad(loss(run(rule, start_at, 3, create_graph=True)), list(start_at.values()))
    direction = {n: torch.full_like(p, 0.5) for n, p in start_at.items()}

    def value(sign: int) -> float:
        moved = {n: (p.detach() + sign * H * direction[n]).requires_grad_() for n, p in start_at.items()}
        return loss(run(rule, moved, 3)).item()

    along = sum((g * direction[n]).sum().item() for g, n in zip(exact, start_at))
    assert along == pytest.approx((value(1) - value(-1)) / (2 * H), rel=1e-6)


@each_case
def test_the_gradient_in_every_setting_equals_finite_differences(name, settings, oracle, renamed) -> None:
    """Settings as tensors, one by one; the oracle moves them as plain numbers."""
    rule = built(name, settings)
    params = {n: p.requires_grad_() for n, p in start().items()}
    for key, value in rule.settings.items():
        tensor = torch.tensor(float(value), dtype=torch.float64, requires_grad=True)
        result = loss(run(rule.replace(**{key: tensor}), params, 4, create_graph=True))
        torch.testing.assert_close(result, loss(run(rule, params, 4)), rtol=1e-13, atol=0.0)
        (exact,) = torch.autograd.grad(result, tensor, allow_unused=True)
        h = 1e-4 * max(abs(value), 1e-3)

        def moved(by: float, key=key, value=value) -> float:
            return loss(run(rule.replace(**{key: value + by}), params, 4)).item()

        differences = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        inert = key in ("momentum", "dampening") and not getattr(rule, "buffered", True)  # no buffer, no effect
        assert (0.0 if exact is None else exact.item()) == pytest.approx(differences, rel=1e-5, abs=1e-8)
        assert (exact is None or exact.item() == 0) == (inert or (key == "dampening" and differences == 0)), key


@each_case
def test_settings_of_each_tensor_by_name(name, settings, oracle, renamed) -> None:
    """A mapping by name gives each tensor what a rule with that number alone would give it."""
    rule = built(name, settings)
    params = start()
    grads = {n: p.cos() for n, p in params.items()}
    lr = {"w": settings["lr"] * 2, "b": torch.tensor(settings["lr"] / 2, dtype=torch.float64)}
    params_after, _ = rule.replace(lr=lr).update(grads, rule.init(params), params)
    for n in params:
        expected, _ = built(name, {**settings, "lr": float(lr[n])}).update(grads, rule.init(params), params)
        torch.testing.assert_close(params_after[n], expected[n], rtol=1e-14, atol=0.0)


@each_case
def test_exact_zeros_stay_put_with_finite_gradients_and_arguments_are_untouched(name, settings, oracle, renamed) -> None:
    rule = built(name, {**settings, "weight_decay": 0.0})
    params = {"w": torch.ones(3, dtype=torch.float64, requires_grad=True)}
    grads = {"w": torch.zeros(3, dtype=torch.float64, requires_grad=True)}
    tensors = {key: torch.tensor(float(value), dtype=torch.float64, requires_grad=True) for key, value in rule.settings.items() if key != "weight_decay"}
    state = rule.init(params)
    after, second = rule.replace(**tensors).update(grads, state, params)
    after, _ = rule.replace(**tensors).update(grads, second, after)
    assert torch.equal(after["w"], params["w"])
    for g in torch.autograd.grad(after["w"].sum(), [params["w"], grads["w"], *tensors.values()], allow_unused=True):
        assert g is None or g.isfinite().all()
    assert torch.equal(params["w"], torch.ones(3, dtype=torch.float64))
    assert state["step"] == 0
