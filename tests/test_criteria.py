"""Accuracy against counting by hand; divergences, policies and their gradients against torch's distributions and sums over all actions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributions as D

from metaflowkit.criteria import Classification, Decisions, Policy, Regression, accuracy, advantages


@pytest.mark.parametrize(("y", "share"), [([0, 1, 2, 0], 1.0), ([0, 1, 2, 1], 0.75), ([1, 2, 0, 2], 0.0)])
def test_counted_by_hand(y, share) -> None:
    logits = torch.tensor([[3.0, 1, 2], [-2, -1, -3], [0, 1, 2], [9, 8, 7]])
    assert accuracy(logits, torch.tensor(y)).item() == share


def test_leading_axes_stay_and_the_type_is_that_of_the_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64), torch.randint(0, 4, (2, 3, 7), generator=generator)
    measured = accuracy(logits, y)
    assert measured.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            hits = sum(max(range(4), key=lambda k: logits[i, j, n, k].item()) == y[i, j, n].item() for n in range(7))
            assert measured[i, j].item() == pytest.approx(hits / 7)


G = torch.Generator().manual_seed(1)
P, Q = (torch.randn(7, 4, generator=G, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergences_are_those_of_torchs_distributions(temperature) -> None:
    def mean_kl(p: D.Distribution, q: D.Distribution) -> torch.Tensor:
        return D.kl_divergence(p, q).mean()

    def normal(outputs: torch.Tensor) -> D.Distribution:
        mean, log_deviation = outputs.chunk(2, -1)
        return D.Independent(D.Normal(mean, log_deviation.exp() * temperature**0.5), 1)

    categorical = mean_kl(*(D.Categorical(logits=x / temperature) for x in (P, Q)))
    torch.testing.assert_close(Classification().divergence(P, Q, temperature), categorical)
    torch.testing.assert_close(Policy(discrete=True).divergence(P, Q, temperature), categorical)
    unit = (D.Independent(D.Normal(x, temperature**0.5), 1) for x in (P, Q))
    torch.testing.assert_close(Regression().divergence(P, Q, temperature), mean_kl(*unit))
    torch.testing.assert_close(Policy(discrete=False).divergence(P, Q, temperature), mean_kl(normal(P), normal(Q)))


@pytest.mark.parametrize("discrete", [True, False])
def test_a_policys_log_probability_and_entropy_are_those_of_torchs_distributions(discrete) -> None:
    policy = Policy(discrete)
    distribution = D.Categorical(logits=P) if discrete else D.Independent(D.Normal(P[:, :2], P[:, 2:].exp()), 1)
    torch.manual_seed(0)
    action = distribution.sample()
    torch.testing.assert_close(policy.log_probability(P, action), distribution.log_prob(action))
    torch.testing.assert_close(policy.metrics(P, None)["entropy"], distribution.entropy().mean())


def test_actions_by_noise_have_the_policys_distribution() -> None:
    logits, n = torch.tensor([0.5, -1.0, 2.0]), 20_000
    actions = Policy(discrete=True).act(logits.expand(n, 3), torch.rand(n, generator=G))
    shares = torch.bincount(actions, minlength=3) / n
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.015, rtol=0)
    outputs = torch.tensor([1.0, -2.0, 0.3, -0.7])
    drawn = Policy(discrete=False).act(outputs.expand(n, 4), torch.randn(n, 2, generator=G))
    torch.testing.assert_close(drawn.mean(0), outputs[:2], atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.std(0), outputs[2:].exp(), atol=0.04, rtol=0)


def test_the_policy_gradient_and_its_curvature() -> None:
    """Oracle: over all actions of a small policy, E[A r] with r the ratio has the gradient and Hessian of sum_a pi(a) A(a), which is linear in pi."""
    logits, advantage = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    action, pi = torch.arange(3), logits.softmax(0)

    def surrogate(x: torch.Tensor) -> torch.Tensor:
        return Policy(discrete=True).loss(x.expand(3, 3), Decisions(action, advantage, pi))

    def expected(x: torch.Tensor) -> torch.Tensor:
        return -(x.softmax(0) * advantage).sum()

    torch.testing.assert_close(torch.autograd.functional.jacobian(surrogate, logits), torch.autograd.functional.jacobian(expected, logits))
    torch.testing.assert_close(torch.autograd.functional.hessian(surrogate, logits), torch.autograd.functional.hessian(expected, logits))


def test_advantages_are_discounted_sums_less_their_mean_over_trajectories() -> None:
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alive = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.float64)
    to_go = np.array([[sum(0.9 ** (k - t) * (rewards * alive)[i, k].item() for k in range(t, 5)) for t in range(5)] for i in range(3)])
    mask = alive.numpy()
    centred = (to_go - (to_go * mask).sum(0) / mask.sum(0)) * mask
    expected = centred / (math.sqrt((centred**2).sum() / mask.sum()) + 1e-8)
    np.testing.assert_allclose(advantages(rewards, alive, 0.9).numpy(), expected, rtol=1e-12, atol=1e-15)
