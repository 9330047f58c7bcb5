"""Solvers against torch.linalg.solve on a small positive definite system."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.orders import Implicit
from metaflowkit.orders.implicit import solve

A = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
A = A @ A.T + torch.eye(5, dtype=torch.float64)
RIGHT = torch.arange(1.0, 6.0, dtype=torch.float64)


def product(vector):
    whole = A @ torch.cat([v.flatten() for v in vector])
    return [whole[:2], whole[2:].reshape(3, 1)]


@pytest.mark.parametrize("order", [Implicit("cg", 5), Implicit("cg", 50), Implicit("neumann", 3000, rate=0.1)], ids=["exact in five", "long after", "neumann"])
def test_solution(order) -> None:
    solution = torch.cat([x.flatten() for x in solve(product, [RIGHT[:2], RIGHT[2:].reshape(3, 1)], order)])
    torch.testing.assert_close(solution, torch.linalg.solve(A, RIGHT), rtol=1e-8, atol=1e-10)


def test_a_zero_right_side_gives_zero() -> None:
    assert all(torch.equal(x, torch.zeros_like(x)) for x in solve(product, [torch.zeros(2).double(), torch.zeros(3, 1).double()], Implicit("cg", 3)))
