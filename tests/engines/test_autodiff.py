"""The two ways to take gradients agree with each other and with the derivatives of a polynomial."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.engines.autodiff import Eager, Functional

each = pytest.mark.parametrize("autodiff", [Functional(), Eager()], ids=["functional", "eager"])
X = torch.tensor([1.0, 2.0], dtype=torch.float64)


def cube(params):
    return (params["x"] ** 3).sum()


@each
def test_a_gradient_through_a_gradient_is_the_second_derivative_where_a_graph_is_created(autodiff) -> None:
    def value(params, create_graph):
        return autodiff.grad(cube, params, create_graph)["x"].sum() + params["x"].sum(), {"seen": params["x"].sum()}

    for create_graph, expected in ((True, 6 * X + 1), (False, torch.ones(2, dtype=torch.float64))):
        gradients, at, seen = autodiff.value_and_grad(lambda p, create_graph=create_graph: value(p, create_graph), {"x": X, "unused": X})
        torch.testing.assert_close(gradients["x"], expected)
        assert torch.equal(gradients["unused"], torch.zeros(2, dtype=torch.float64))
        assert (at.item(), seen["seen"].item()) == (18.0, 3.0)
        assert not any(t.requires_grad for t in (at, seen["seen"], *gradients.values()))


@each
def test_vjp_is_the_product_with_the_jacobian(autodiff) -> None:
    a, b, constant = autodiff.vjp(lambda a, b, c: [a * b, a.sum(), torch.ones(1, dtype=torch.float64)], [X, 2 * X, X], [X, torch.tensor(3.0).double(), X[:1]])
    torch.testing.assert_close(a, 2 * X * X + 3)
    torch.testing.assert_close(b, X * X)
    assert torch.equal(constant, torch.zeros(2, dtype=torch.float64))


@each
def test_a_value_that_depends_on_nothing_has_zero_gradients(autodiff) -> None:
    gradients, _, _ = autodiff.value_and_grad(lambda p: (torch.ones(()), {}), {"x": X})
    assert torch.equal(gradients["x"], torch.zeros(2, dtype=torch.float64))


@each
def test_gradients_at_constants_leave_the_arguments_alone(autodiff) -> None:
    with torch.no_grad():
        at_x = autodiff.grad(cube, {"x": X}, create_graph=False)
    torch.testing.assert_close(at_x["x"], 3 * X * X)
    assert not at_x["x"].requires_grad
    assert not X.requires_grad
