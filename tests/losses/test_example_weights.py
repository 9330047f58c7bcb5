"""Weighted cross-entropy against its formula; equal weights are plain cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from metaflowkit.losses.example_weights import ExampleWeights
from metaflowkit.types import Outputs

G = torch.Generator().manual_seed(0)
LOGITS, Y = torch.randn(5, 3, generator=G, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])


def test_it_is_cross_entropy_to_begin_with_and_its_formula_after() -> None:
    loss = ExampleWeights(5).double()
    outputs = Outputs(LOGITS, LOGITS)
    torch.testing.assert_close(loss(outputs, Y), F.cross_entropy(LOGITS, Y))
    with torch.no_grad():
        loss.weight.copy_(torch.randn(5, generator=G))
    each = -LOGITS.log_softmax(1)[torch.arange(5), Y]
    torch.testing.assert_close(loss(outputs, Y), (2 / (1 + (-loss.weight).exp()) * each).mean())


def test_derivatives() -> None:
    weight = torch.randn(5, generator=G, dtype=torch.float64, requires_grad=True)
    logits = LOGITS.clone().requires_grad_()
    loss = ExampleWeights(5)

    def value(weight: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(loss, {"weight": weight}, (Outputs(logits, logits), Y))

    assert torch.autograd.gradcheck(value, (weight, logits))
    assert torch.autograd.gradgradcheck(value, (weight, logits))
