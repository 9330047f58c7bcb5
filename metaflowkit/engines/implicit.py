"""Solving (H + lambda I) x = g with products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metaflowkit.engines.orders import Implicit

Vector = list[Tensor]


def solve(product: Callable[[Vector], Vector], right: Vector, order: Implicit) -> Vector:
    """An approximate solution after ``order.iterations`` steps from zero; no branch depends on values, so that vmap can batch it.

    Args:
        product: v -> (H + lambda I) v.
        right: g.
        order: solver, iterations, rate.
    """
    return _conjugate_gradients(product, right, order.iterations) if order.solver == "cg" else _neumann(product, right, order.iterations, order.rate)


def _conjugate_gradients(product: Callable[[Vector], Vector], right: Vector, iterations: int) -> Vector:
    x = [torch.zeros_like(r) for r in right]
    residual, direction, size = right, right, _dot(right, right)
    for _ in range(iterations):
        image = product(direction)
        step = _share(size, _dot(direction, image))
        x = [a + step * d for a, d in zip(x, direction)]
        residual = [r - step * i for r, i in zip(residual, image)]
        before, size = size, _dot(residual, residual)
        direction = [r + _share(size, before) * d for r, d in zip(residual, direction)]
    return x


def _neumann(product: Callable[[Vector], Vector], right: Vector, iterations: int, rate: float) -> Vector:
    term, total = right, right
    for _ in range(iterations):
        term = [t - rate * p for t, p in zip(term, product(term))]
        total = [s + t for s, t in zip(total, term)]
    return [rate * s for s in total]


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b)]).sum()


def _share(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: a solved system stays solved."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0)
