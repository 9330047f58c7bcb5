"""The implicit function theorem at the adapted weights, and the solution of (H + lambda I) x = g from matrix-vector products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import ORDERS
from metaflowkit.config.schema import Count, Positive
from metaflowkit.orders.base import Loop, Order, Result
from metaflowkit.trees import Params

Vector = list[Tensor]


@ORDERS.register("implicit")
class Implicit(Order):
    """The implicit function theorem at the adapted weights: lambda (H + lambda I)^-1 times the objective's gradient (iMAML).

    H is the Hessian of the inner loss, lambda is ``inner.proximal``. Exact where the inner loop has converged; no step is stored.

    Args:
        solver: ``cg`` for conjugate gradients, ``neumann`` for the series rate sum_j (I - rate (H + lambda I))^j.
        iterations: of the solver.
        rate: of the Neumann series; must lie below 2 over the largest eigenvalue of H + lambda I.

    Reference:
        A. Rajeswaran et al., Meta-Learning with Implicit Gradients, NeurIPS 2019, equation 6; J. Lorraine, P. Vicol,
        D. Duvenaud, Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, algorithm 3.
    """

    converges = True
    needs_proximal = True

    def __init__(self, solver: Literal["cg", "neumann"] = "cg", iterations: Count = 10, rate: Positive = 0.1) -> None:
        self.solver, self.iterations, self.rate = solver, iterations, rate

    def gradient(self, loop: Loop, meta: Params) -> Result:
        """The gradient by the implicit function theorem; parameters that do not adapt get the mixed derivative."""
        params, state = loop.adapted(meta)
        direct, value, metrics = loop.objective_gradient(meta, params, state)
        fast = list(loop.fast(params))

        def product(vector: Vector) -> Vector:
            return [h + loop.proximal * v for h, v in zip(loop.curvature(params, fast, vector), vector)]

        solution = solve(product, [direct[name] for name in fast], self)
        gradients = {name: loop.proximal * x for name, x in zip(fast, solution)}
        trained = list(loop.trained(meta))
        if any(name not in gradients for name in trained):
            mixed = dict(zip(trained, loop.curvature(params, trained, solution)))
            gradients |= {name: direct[name] - mixed[name] for name in trained if name not in gradients}
        return {name: gradients[name] for name in trained}, value, metrics


def solve(product: Callable[[Vector], Vector], rhs: Vector, order: Implicit) -> Vector:
    """An approximate solution after ``order.iterations`` steps from zero; no branch depends on values, so that vmap can batch it.

    Args:
        product: v -> (H + lambda I) v.
        rhs: g.
        order: solver, iterations, rate.
    """
    return _conjugate_gradients(product, rhs, order.iterations) if order.solver == "cg" else _neumann(product, rhs, order.iterations, order.rate)


def _conjugate_gradients(product: Callable[[Vector], Vector], rhs: Vector, iterations: int) -> Vector:
    x = [torch.zeros_like(r) for r in rhs]
    residual, direction, size = rhs, rhs, _dot(rhs, rhs)
    for _ in range(iterations):
        image = product(direction)
        step = _ratio(size, _dot(direction, image))
        x = [a + step * d for a, d in zip(x, direction)]
        residual = [r - step * i for r, i in zip(residual, image)]
        previous, size = size, _dot(residual, residual)
        direction = [r + _ratio(size, previous) * d for r, d in zip(residual, direction)]
    return x


def _neumann(product: Callable[[Vector], Vector], rhs: Vector, iterations: int, rate: float) -> Vector:
    term, total = rhs, rhs
    for _ in range(iterations):
        term = [t - rate * p for t, p in zip(term, product(term))]
        total = [s + t for s, t in zip(total, term)]
    return [rate * s for s in total]


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b)]).sum()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: an exact solution is not changed."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0)
