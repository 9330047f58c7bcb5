"""The outer optimisers against torch's own."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import OPTIMIZERS
from metaflowkit.reporting.train import train
from tests.small import SMALL

CASES = [
    ("adam", {"lr": 0.02, "beta1": 0.7, "beta2": 0.8, "weight_decay": 0.1}, torch.optim.Adam, {"lr": 0.02, "betas": (0.7, 0.8), "weight_decay": 0.1}),
    ("adamw", {"lr": 0.02, "beta1": 0.7, "beta2": 0.8, "weight_decay": 0.1}, torch.optim.AdamW, {"lr": 0.02, "betas": (0.7, 0.8), "weight_decay": 0.1}),
    ("sgd", {"lr": 0.02, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1}, torch.optim.SGD, {"lr": 0.02, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1}),
    ("sgd", {}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ("adam", {}, torch.optim.Adam, {"lr": 1e-3}),
    ("adamw", {}, torch.optim.AdamW, {"lr": 1e-3}),
]  # fmt: skip


def descend(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> torch.Tensor:
    for _ in range(5):
        optimizer.zero_grad()
        (p.square() * torch.tensor([1.0, 3.0])).sum().backward()
        optimizer.step()
    return p.detach()


def test_every_optimizer_is_covered() -> None:
    assert {case[0] for case in CASES} == set(OPTIMIZERS.entries())


@pytest.mark.parametrize(("name", "settings", "cls", "arguments"), CASES, ids=str)
def test_settings_reach_torch(name, settings, cls, arguments) -> None:
    p, q = (torch.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    optimizer = OPTIMIZERS.build(Choice(name, settings), parameters=[p])
    other = cls([q], **arguments)
    assert isinstance(optimizer, cls)
    assert type(optimizer).__name__ == cls.__name__
    assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == {k: v for k, v in other.param_groups[0].items() if k != "params"}
    assert optimizer.param_groups[0]["params"][0] is p
    assert torch.equal(descend(optimizer, p), descend(other, q))


@pytest.mark.parametrize(("name", "settings", "cls", "arguments"), CASES[:3], ids=str)
def test_state_goes_on_in_torch_and_back(name, settings, cls, arguments) -> None:
    p, q = (torch.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    optimizer, other = OPTIMIZERS.build(Choice(name, settings), parameters=[p]), cls([q], **arguments)
    descend(optimizer, p)
    q.data.copy_(p.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    descend(other, q)
    again = OPTIMIZERS.build(Choice(name, settings), parameters=[p])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(descend(again, p), q)


def test_a_step_takes_no_gradient_calls_hooks_and_runs_a_closure() -> None:
    p, seen = torch.tensor([1.0, -2.0], requires_grad=True), []
    optimizer = OPTIMIZERS.build(Choice("sgd", {"lr": 0.5, "momentum": 0.0}), parameters=[p])
    optimizer.register_step_post_hook(lambda *arguments: seen.append(torch.is_grad_enabled()))

    def closure():
        optimizer.zero_grad()
        value = p.square().sum()
        value.backward()
        return value

    assert optimizer.step(closure) == 5
    assert p.tolist() == [0, 0]
    assert p.is_leaf
    assert seen == [True]


ALONE = """
import sys, torch
from metaflowkit.training.optimizers import adam, adamw, sgd

for build in (adam, adamw, sgd):
    p = torch.ones(2, requires_grad=True)
    optimizer = build([p])
    p.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def test_no_compiler_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_class_of_torch_with_its_own_constructor_is_an_optimizer(write, tmp_path, monkeypatch) -> None:
    (tmp_path / "inherited_optimizer.py").write_text(
        "import torch\nfrom metaflowkit.config.registry import OPTIMIZERS\n\n\n@OPTIMIZERS.register('inherited')\nclass Inherited(torch.optim.SGD):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(SMALL + "plugins: [inherited_optimizer]\n")
    try:
        pipeline = read(path, ["outer.optimizer={name: inherited, lr: 0.01, momentum: 0.5}", "outer.steps=1", "evaluate.every=1"])
        assert not {"params", "parameters"} & set(pipeline.outer.optimizer.settings)
        assert train(pipeline, tmp_path / "run").best is not None
    finally:
        OPTIMIZERS.classes.pop("inherited")
