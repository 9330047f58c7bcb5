"""Criteria, the meaning of a model's outputs in a family of tasks: the tasks' loss, the divergence of two predictions, and the metrics of a run."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metaflowkit.types import Labelled


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Accuracy in 0..1 of logits [..., n, N] for labels [..., n], over the last axis: the share whose largest score is their label's."""
    return (logits.argmax(-1) == y).to(logits.dtype).mean(-1)


class Classification:
    """Outputs are the logits of classes, targets int64 [n]: pi = softmax(outputs / temperature), and the loss is cross-entropy."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean_i -log softmax(outputs_i)[y_i]."""
        return F.cross_entropy(outputs, y)

    def divergence(self, p: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean_i sum_k pi_p(k) (log pi_p(k) - log pi_q(k))."""
        log_p, log_q = (p / temperature).log_softmax(-1), (q / temperature).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The accuracy."""
        return {"accuracy": accuracy(outputs, y)}


class Regression:
    """Outputs are means of normal distributions of variance ``temperature``, targets [n, N]; the loss is the mean squared error."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean over examples and outputs of (outputs - y)^2.

        Raises:
            ValueError: the targets have another shape than the outputs, which torch would broadcast.
        """
        if outputs.shape != y.shape:
            raise ValueError(f"targets y must have the shape of the outputs, {list(outputs.shape)}, got {list(y.shape)}")
        return (outputs - y).square().mean()

    def divergence(self, p: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean_i |p_i - q_i|^2 / (2 temperature)."""
        return (p - q).square().sum(-1).mean() / (2 * temperature)

    def metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """None, since the loss is the metric."""
        return {}


class Decisions(NamedTuple):
    """Decisions of a policy, one for each observation x.

    Attributes:
        action: int64 [n] of discrete actions, or [n, A].
        advantage: of the action, [n].
        weight: of the decision in means, [n]; the weights of a task sum to 1, and those after a trajectory's end are 0.
    """

    action: Tensor
    advantage: Tensor
    weight: Tensor


class Policy:
    """Outputs are a policy's: logits of discrete actions, or mean and logarithmic deviation [n, 2 A] of normal ones.

    The loss is the policy gradient's: -sum_i w_i A_i pi(a_i | x_i) / pi_old(a_i | x_i), where pi_old is pi itself without gradient. Its
    first derivative is REINFORCE's; unlike that of log pi, its second derivative also has the product of two scores, hence
    the effect of adaptation on what is sampled (the low-variance curvature estimator).

    Args:
        discrete: whether actions are discrete.

    Reference:
        R. Williams, Simple statistical gradient-following algorithms, Machine Learning 1992; J. Rothfuss et al., ProMP: Proximal
        Meta-Policy Search, ICLR 2019, equation 9.
    """

    def __init__(self, discrete: bool) -> None:
        self.discrete = discrete

    def log_probability(self, outputs: Tensor, action: Tensor) -> Tensor:
        """Log pi(a_i | x_i), [n]."""
        if self.discrete:
            return outputs.log_softmax(-1).gather(-1, action[..., None])[..., 0]
        mean, log_deviation = outputs.chunk(2, -1)
        standardised = (action - mean) / log_deviation.exp()
        return (-0.5 * standardised.square() - log_deviation - 0.5 * math.log(2 * math.pi)).sum(-1)

    def act(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Actions by given noise: standard normal [n, A], or for discrete actions uniform [n] in 0..1."""
        if self.discrete:
            below = outputs.softmax(-1).cumsum(-1) < noise[..., None]
            return below.sum(-1).clamp_max(outputs.shape[-1] - 1)
        mean, log_deviation = outputs.chunk(2, -1)
        return mean + log_deviation.exp() * noise

    def loss(self, outputs: Tensor, y: Decisions) -> Tensor:
        """Minus the weighted sum of advantage times probability ratio, scalar."""
        log_probability = self.log_probability(outputs, y.action)
        ratio = (log_probability - log_probability.detach()).exp()
        return -(y.weight * y.advantage * ratio).sum()

    def divergence(self, p: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean_i KL(p_i || q_i); ``temperature`` divides logits, or multiplies both variances."""
        if self.discrete:
            return Classification().divergence(p, q, temperature)
        (mean_p, log_p), (mean_q, log_q) = p.chunk(2, -1), q.chunk(2, -1)
        squares = ((2 * log_p).exp() + (mean_p - mean_q).square() / temperature) / (2 * log_q).exp()
        return (log_q - log_p + 0.5 * squares - 0.5).sum(-1).mean()

    def metrics(self, outputs: Tensor, y: Decisions) -> dict[str, Tensor]:
        """The entropy of the policy, a mean over the examples."""
        if self.discrete:
            log_p = outputs.log_softmax(-1)
            return {"entropy": -(log_p.exp() * log_p).sum(-1).mean()}
        return {"entropy": (outputs.chunk(2, -1)[1] + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).mean()}


def advantages(rewards: Tensor, alive: Tensor, discount: float) -> Tensor:
    """Discounted rewards to go less their mean at the same time over the trajectories, divided by their deviation.

    Args:
        rewards: [trajectories, time].
        alive: 1 where a decision counts, 0 after the end, [trajectories, time].
        discount: gamma.
    """
    steps = rewards.shape[1]
    time = torch.arange(steps, device=rewards.device)
    delay = (time[:, None] - time).to(rewards.dtype)  # in the rewards' type: a number to a power of whole numbers is float32
    powers = torch.where(delay >= 0, float(discount) ** delay.clamp_min(0), 0.0)
    to_go = (rewards * alive) @ powers  # sum over t' >= t of gamma^(t' - t) r_t'
    baseline = (to_go * alive).sum(0) / alive.sum(0).clamp_min(1)
    centred = (to_go - baseline) * alive
    deviation = (centred.square().sum() / alive.sum().clamp_min(1)).sqrt()
    return centred / (deviation + 1e-8)


def policy_examples(observations: Tensor, actions: Tensor, rewards: Tensor, alive: Tensor, discount: float) -> Labelled:
    """Trajectories as the examples (observation, decision) that :class:`Policy` learns from.

    Args:
        observations: before each action, [trajectories, time, *shape].
        actions: [trajectories, time] or [trajectories, time, A].
        rewards: [trajectories, time].
        alive: 1 where a decision counts, 0 after the end, [trajectories, time].
        discount: gamma.
    """
    advantage = advantages(rewards, alive, discount)
    return Labelled(observations.flatten(0, 1), Decisions(actions.flatten(0, 1), advantage.flatten(), (alive / alive.sum()).flatten()))


def mean_return(rewards: Tensor, alive: Tensor) -> Tensor:
    """The mean over trajectories of the sum of their rewards, undiscounted, scalar; arguments as in :func:`policy_examples`."""
    return (rewards * alive).sum(1).mean()
