"""Every update rule: torch.optim over 20 steps in float64, hypergradients by finite differences, exact zeros."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.registry import RULES, Choice

CASES = [
    ("sgd", {"lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    ("sgd", {"lr": 0.05, "momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    ("sgd", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1)),
    ("adam", {"lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
    ("adam", {"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 1e-3, "weight_decay": 0.2}, lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.7), eps=1e-3, weight_decay=0.2)),
]  # fmt: skip


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


def test_every_rule_is_covered() -> None:
    assert {name for name, _, _ in CASES} == set(RULES.entries())


@pytest.mark.parametrize(("name", "settings", "oracle"), CASES, ids=lambda v: str(v) if isinstance(v, (str, dict)) else "")
def test_twenty_steps_equal_those_of_torch(name, settings, oracle) -> None:
    found = run(RULES.build(Choice(name, settings)), {n: p.requires_grad_() for n, p in start().items()}, 20)
    expected = {n: p.requires_grad_() for n, p in start().items()}
    optimizer = oracle(list(expected.values()))
    for _ in range(20):
        optimizer.zero_grad()
        loss(expected).backward()
        optimizer.step()
    for n in expected:
        torch.testing.assert_close(found[n], expected[n], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "settings", "oracle"), CASES, ids=lambda v: str(v) if isinstance(v, (str, dict)) else "")
def test_the_gradient_through_three_steps_equals_finite_differences(name, settings, oracle) -> None:
    rule = RULES.build(Choice(name, settings))
    start_at = {n: p.requires_grad_() for n, p in start().items()}
    exact = torch.autograd.grad(loss(run(rule, start_at, 3, create_graph=True)), list(start_at.values()))
    direction = {n: torch.full_like(p, 0.5) for n, p in start_at.items()}
    h = 1e-5

    def value(sign: int) -> float:
        moved = {n: (p.detach() + sign * h * direction[n]).requires_grad_() for n, p in start_at.items()}
        return loss(run(rule, moved, 3)).item()

    along = sum((g * direction[n]).sum().item() for g, n in zip(exact, start_at))
    assert along == pytest.approx((value(1) - value(-1)) / (2 * h), rel=1e-6)


@pytest.mark.parametrize(("name", "settings", "oracle"), CASES, ids=lambda v: str(v) if isinstance(v, (str, dict)) else "")
def test_exact_zeros_stay_put_with_finite_gradients_and_arguments_are_untouched(name, settings, oracle) -> None:
    rule = RULES.build(Choice(name, {**settings, "weight_decay": 0.0}))
    params = {"w": torch.ones(3, dtype=torch.float64, requires_grad=True)}
    grads = {"w": torch.zeros(3, dtype=torch.float64, requires_grad=True)}
    state = rule.init(params)
    after, _ = rule.update(grads, state, params)
    assert torch.equal(after["w"], params["w"])
    for g in torch.autograd.grad(after["w"].sum(), [params["w"], grads["w"]]):
        assert g.isfinite().all()
    assert torch.equal(params["w"], torch.ones(3, dtype=torch.float64))
    assert rule.init(params).keys() == state.keys()
