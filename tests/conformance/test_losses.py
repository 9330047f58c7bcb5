"""Every inner loss: gradients by finite differences, and no dependence on the order of the examples."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import LOSSES
from metaflowkit.types import Outputs

CASES = [
    ("contrastive", {}),
    ("contrastive", {"temperature": 0.5}),
    ("cross_entropy", {}),
    ("task", {}),
    ("prototype", {}),
    ("prototype", {"metric": "euclidean"}),
]
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def outputs() -> Outputs:
    generator = torch.Generator().manual_seed(0)
    return Outputs(*(torch.randn(7, d, generator=generator, dtype=torch.float64, requires_grad=True) for d in (4, 3)))


def test_every_loss_is_covered() -> None:
    assert {name for name, _ in CASES} == set(LOSSES.entries()) - {"example_weights"}  # whose parameters are learned


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_derivatives_and_order(name, settings) -> None:
    loss, out = LOSSES.build(Choice(name, settings)), outputs()
    assert torch.autograd.gradcheck(lambda f, s: loss(Outputs(f, s), Y), tuple(out))
    assert torch.autograd.gradgradcheck(lambda f, s: loss(Outputs(f, s), Y), tuple(out))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    shuffled = loss(Outputs(out.features[order], out.logits[order]), Y[order])
    torch.testing.assert_close(shuffled, loss(out, Y), rtol=1e-12, atol=1e-12)
