"""Prototypes and similarities against plain loops and torch's own functions, and their derivatives in float64."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, vmap

from metaflowkit.distances import membership, prototypes, similarity, unit


def rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = torch.tensor([2, 0, 1, 0, 2, 2])


def test_membership_is_one_hot() -> None:
    assert torch.equal(membership(Y, 4).long(), torch.nn.functional.one_hot(Y, 4))


def test_prototypes_are_the_means_of_the_classes() -> None:
    x = rows(6, 3)
    means = [sum(x[i] for i in range(6) if Y[i] == k) / sum(1 for i in range(6) if Y[i] == k) for k in range(3)]
    torch.testing.assert_close(prototypes(x, Y, 3), torch.stack(means), rtol=1e-14, atol=1e-14)
    assert prototypes(x.float(), Y, 3).dtype == torch.float32


def test_prototypes_do_not_depend_on_the_order_of_examples() -> None:
    x, order = rows(6, 3), torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(prototypes(x[order], Y[order], 3), prototypes(x, Y, 3), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        ("cosine", lambda a, b: torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)),
        ("euclidean", lambda a, b: -torch.cdist(a, b).square()),
        ("semi_normalised", lambda a, b: a @ torch.nn.functional.normalize(b, dim=1).T),
    ],
)
def test_similarity_equals_torch(metric, oracle) -> None:
    a, b = rows(4, 5), rows(3, 5, seed=1)
    torch.testing.assert_close(similarity(a, b, metric), oracle(a, b), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "semi_normalised"])
def test_derivatives(metric) -> None:
    a, b = rows(3, 2).requires_grad_(), rows(2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: similarity(a, b, metric), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: similarity(a, b, metric), (a, b))
    assert torch.autograd.gradgradcheck(lambda x: prototypes(x, Y, 3).square(), rows(6, 2).requires_grad_())


def test_unit_rows_have_length_one_and_zero_stays_zero() -> None:
    x = rows(4, 5)
    x[2] = 0
    lengths = unit(x).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1, 0, 1], dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "semi_normalised"])
def test_zero_rows_have_finite_first_and_second_derivatives(metric) -> None:
    a, b = torch.zeros(2, 3, requires_grad=True), rows(2, 3).float()
    b[0] = 0
    b.requires_grad_()
    first = torch.autograd.grad(similarity(a, b, metric).square().sum(), (a, b), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (a, b))
    assert all(g.isfinite().all() for g in (*first, *second))


def test_works_under_nested_transforms() -> None:
    x, y = rows(12, 3).view(2, 6, 3), torch.stack([Y, Y.flip(0)])

    def energy(x, y):
        return grad(lambda z: prototypes(z, y, 3).square().sum())(x).square().sum()

    batched = vmap(grad(energy))(x, y)
    torch.testing.assert_close(batched, torch.stack([grad(energy)(x[t], y[t]) for t in range(2)]), rtol=1e-12, atol=1e-12)
