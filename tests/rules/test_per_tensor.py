"""What rules share: settings may be numbers, tensors or mappings, and a copy with others leaves the rule as it was."""

from __future__ import annotations

import torch

from metaflowkit.rules.per_tensor import safe_sqrt, used
from metaflowkit.rules.sgd import SGD


def test_having_is_a_copy() -> None:
    rule = SGD(lr=0.1)
    other = rule.replace(lr=0.5)
    p = {"w": torch.ones(1)}
    assert other.update(p, other.init(p), p)[0]["w"].item() == 0.5
    assert rule.settings["lr"] == 0.1


def test_zero_is_unused_and_a_tensor_may_be_anything() -> None:
    assert (used(0.0), used(0.1), used(torch.zeros(()))) == (False, True, True)


def test_root_and_its_derivatives_at_zero() -> None:
    v = torch.tensor([0.0, 4.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(safe_sqrt(v).sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), v)
    assert safe_sqrt(v).tolist() == [0.0, 2.0]
    assert first.tolist() == [0.0, 0.25]
    assert second.tolist() == [0.0, -1 / 32]
