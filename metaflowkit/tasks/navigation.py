"""Reinforcement learning: a point in the plane that must find a goal that it does not observe."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Count, Examples, Fraction, Natural
from metaflowkit.criteria import Policy, mean_return, policy_examples
from metaflowkit.seeding import generator_for
from metaflowkit.trees import Call
from metaflowkit.types import Episode, Labelled

SIDE = 0.5  # of the square of goals, from the start to each side
SPEED = 0.1  # an action's components are clipped to it
NEAR = 0.01  # of the goal, where a trajectory ends


class Walks(NamedTuple):
    """The source of a task's walks.

    Attributes:
        goal: [2].
        noise: standard normal, of every draw, trajectory and time, [draws, S, H, 2].
    """

    goal: Tensor
    noise: Tensor


@TASKS.register("navigation")
class Navigation:
    """A task is a goal in the square [-0.5, 0.5]^2; a point starts at the origin, observes its position, and moves by its action, clipped to 0.1 per axis.

    The reward is minus the squared distance to the goal, after each of H moves or until the point is within 0.01. Trajectories of an inner
    step are drawn with the current parameters, from noise that belongs to the task and the step. Measured is the mean
    sum of rewards of further trajectories on held-out goals.

    Args:
        seed: the run's seed.
        evaluation_seed: of the tasks that are measured.
        shot: trajectories of each inner step (S).
        query: trajectories that the objective, and the return, is read on.
        meta_batch: goals per outer step (T).
        horizon: moves of a trajectory (H).
        discount: of later rewards in advantages.
        draws: number of inner steps with their own noise, at least that of all inner steps, including those of a target and of evaluation.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.3.
        Differs from the paper: advantages subtract the mean over trajectories instead of a fitted linear baseline.
    """

    reads_data = False
    reads_labels = False
    measured = True
    samples = True
    metric = "return"
    higher_is_better = True
    percent = False
    criterion = Policy(discrete=False)
    shape = (2,)
    outputs = 2

    def __init__(
        self,
        seed: Natural,
        evaluation_seed: Natural = 0,
        shot: Examples = 20,
        query: Examples = 20,
        meta_batch: Examples = 20,
        horizon: Count = 100,
        discount: Fraction = 0.99,
        draws: Count = 8,
    ) -> None:
        self.seed, self.evaluation_seed, self.shot, self.query, self.meta_batch = seed, evaluation_seed, shot, query, meta_batch
        self.horizon, self.discount, self.draws = horizon, discount, draws

    def episode(self, step: int) -> Episode:
        """Goals, and the noise of their walks."""
        return self._drawn(self.seed, "train", step, self.meta_batch, self.shot)

    def held_out(self, split: str, index: int, count: int, shot: int) -> Episode:
        """Goals of another stream; see :class:`metaflowkit.tasks.base.MeasuredTasks`."""
        return self._drawn(self.evaluation_seed, split, index, count, shot)

    def _drawn(self, seed: int, purpose: str, index: int, count: int, shot: int) -> Episode:
        generator = generator_for(seed, f"tasks/{purpose}", index)
        goal = SIDE * (2 * torch.rand(count, 2, generator=generator) - 1)
        noise = [torch.randn(count, self.draws, size, self.horizon, 2, generator=generator) for size in (shot, self.query)]
        return Episode(Walks(goal, noise[0]), Walks(goal, noise[1]))

    def sample(self, call: Call, batch: Walks, draw: int) -> Labelled:
        """Walks of the current policy, as positions [S H, 2] and decisions."""
        return policy_examples(*self._walked(call, batch, draw), self.discount)

    def measure(self, call: Call, task: Episode) -> Tensor:
        """The mean over trajectories of the sum of their rewards."""
        _, _, rewards, alive = self._walked(call, task.query, 0)
        return mean_return(rewards, alive)

    def _walked(self, call: Call, batch: Walks, draw: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions before each move [S, H, 2], actions [S, H, 2], rewards [S, H], and 1 until the goal is reached [S, H]."""
        noise = batch.noise[draw]
        position, running = torch.zeros_like(noise[:, 0]), torch.ones_like(noise[:, 0, 0])
        steps = []
        for t in range(self.horizon):
            action = self.criterion.act(call(position).logits, noise[:, t])
            next_position = position + action.clamp(-SPEED, SPEED)
            distance = (next_position - batch.goal).square().sum(-1)
            steps.append((position, action, -distance, running))
            running = running * (distance > NEAR**2)
            position = next_position
        positions, actions, rewards, alive = (torch.stack(column, 1) for column in zip(*steps))
        return positions, actions, rewards, alive
