"""Every outer optimiser against torch's own of the same name, with the defaults that are listed for it."""

from __future__ import annotations

import copy

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import OPTIMIZERS

NAMES = sorted(OPTIMIZERS.entries())
START, GRADIENT = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 4.0, -0.02])


def torch_own(name: str, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    make = next(getattr(torch.optim, candidate) for candidate in dir(torch.optim) if candidate.lower() == name and candidate != name)
    settings = {key: setting.default for key, setting in OPTIMIZERS.entries()[name].settings.items()}
    betas = [settings.pop(key) for key in ("beta1", "beta2") if key in settings]
    return make(parameters, **settings, **({"betas": tuple(betas)} if betas else {}))


def parameter(gradient: torch.Tensor | None = GRADIENT) -> torch.Tensor:
    p = START.clone().requires_grad_()
    p.grad = None if gradient is None else gradient.clone()
    return p


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_torch_against_the_gradient(name) -> None:
    p, q, without = parameter(), parameter(), parameter(None)
    optimizer, expected = OPTIMIZERS.build(Choice(name), parameters=iter([p, without])), torch_own(name, [q])
    optimizer.step()
    expected.step()
    assert torch.equal(p, q)
    assert ((p - START) * GRADIENT).sum() < 0
    p.grad, q.grad = GRADIENT.square(), GRADIENT.square()  # only the second step shows both decays of Adam
    optimizer.step()
    expected.step()
    assert torch.equal(p, q)
    assert torch.equal(without, START)  # no gradient, no step, and no decay


@pytest.mark.parametrize("name", NAMES)
def test_its_state_dict_is_all_that_a_resumed_run_needs(name) -> None:
    p = parameter()
    optimizer = OPTIMIZERS.build(Choice(name), parameters=[p])
    optimizer.step()
    q = p.detach().clone().requires_grad_()
    resumed = OPTIMIZERS.build(Choice(name), parameters=[q])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x, steps in ((p, optimizer), (q, resumed)):
        x.grad = -2 * GRADIENT
        steps.step()
    assert torch.equal(p, q)
    assert not torch.equal(p, START)
