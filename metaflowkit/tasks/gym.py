"""Reinforcement learning in environments of Gymnasium whose physics differ from task to task."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Count, Examples, Fraction, Natural
from metaflowkit.criteria import Policy, mean_return, policy_examples
from metaflowkit.errors import require_extra
from metaflowkit.seeding import generator_for, seed_for
from metaflowkit.trees import Call
from metaflowkit.types import Episode, Labelled


class Drawn(NamedTuple):
    """The source of a task's trajectories.

    Attributes:
        physics: value of each attribute that is varied, [P].
        seed: of starts and actions, int64 [].
        size: how many trajectories are drawn, int64 [].
    """

    physics: Tensor
    seed: Tensor
    size: Tensor


@TASKS.register("gymnasium")
class GymnasiumTasks:
    """A task is an environment of Gymnasium in which some attributes, such as a force or gravity, have values of their own.

    Trajectories of each inner step are drawn with the current parameters. Measured is the mean sum of rewards of further trajectories under
    held-out physics. Environments run outside torch, so that tasks cannot be batched: choose inner.engine: {name: vectorized, chunk: 1}.

    Args:
        seed: the run's seed.
        evaluation_seed: of the tasks that are measured.
        env: id of an environment with observations [O] and discrete or bounded continuous actions, such as CartPole-v1.
        physics: attributes that are varied, each with its range [low, high]; uniform.
        signs: those of them whose sign is drawn too, such as of a force, which reverses the controls.
        shot: trajectories of each inner step.
        query: trajectories that the objective, and the return, is read on.
        meta_batch: tasks per outer step (T).
        horizon: steps of a trajectory at most.
        discount: of later rewards in advantages.

    Raises:
        ValueError: Gymnasium is not installed, there is no such environment or attribute, or its spaces are not supported.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.3; M. Towers et al., Gymnasium, 2024.
    """

    reads_data = False
    reads_labels = False
    measured = True
    samples = True
    metric = "return"
    higher_is_better = True
    percent = False

    def __init__(
        self,
        seed: Natural,
        evaluation_seed: Natural = 0,
        env: str = "CartPole-v1",
        physics: dict[str, list[float]] = {"force_mag": [5.0, 15.0], "gravity": [5.0, 15.0]},  # noqa: B006
        signs: list[str] = ["force_mag"],  # noqa: B006
        shot: Examples = 10,
        query: Examples = 10,
        meta_batch: Examples = 8,
        horizon: Count = 200,
        discount: Fraction = 0.99,
    ) -> None:
        if wrong := [f"{name}: {values}" for name, values in physics.items() if len(values) != 2]:
            raise ValueError(f"physics must give each attribute [low, high], got {', '.join(wrong)}; give both")
        if unknown := set(signs) - set(physics):
            raise ValueError(f"signs must name attributes of physics, got {', '.join(sorted(unknown))}; give each a range in physics")
        self.seed, self.evaluation_seed, self.env, self.horizon, self.discount = seed, evaluation_seed, env, horizon, discount
        self.shot, self.query, self.meta_batch = shot, query, meta_batch
        self.physics = {name: (float(low), float(high)) for name, (low, high) in physics.items()}
        self.signs = [name in signs for name in self.physics]
        environment = self._made(1, torch.tensor([low for low, _ in self.physics.values()]))
        environment.close()
        observations, actions = environment.single_observation_space, environment.single_action_space
        if observations.shape is None or len(observations.shape) != 1:
            raise ValueError(f"observations of {env} must be a row of numbers, got {observations}; choose another environment")
        self.discrete = hasattr(actions, "n")
        if not self.discrete and (actions.shape is None or len(actions.shape) != 1):
            raise ValueError(f"actions of {env} must be discrete or a row of numbers, got {actions}; choose another environment")
        self.bounds = None if self.discrete else (actions.low, actions.high)
        self.criterion = Policy(self.discrete)
        self.shape, self.outputs = tuple(observations.shape), int(actions.n if self.discrete else actions.shape[0])

    def episode(self, step: int) -> Episode:
        """Physics and seeds of an outer step's tasks."""
        return self._drawn(self.seed, "train", step, self.meta_batch, self.shot)

    def held_out(self, split: str, index: int, count: int, shot: int) -> Episode:
        """Physics of another stream; see :class:`metaflowkit.tasks.base.MeasuredTasks`."""
        return self._drawn(self.evaluation_seed, split, index, count, shot)

    def _drawn(self, seed: int, purpose: str, index: int, count: int, shot: int) -> Episode:
        generator = generator_for(seed, f"tasks/{purpose}", index)
        low, high = (torch.tensor(bounds) for bounds in zip(*self.physics.values()))
        physics = low + (high - low) * torch.rand(count, len(low), generator=generator)
        sign = torch.where(torch.rand(count, len(low), generator=generator) < 0.5, -1.0, 1.0)
        physics = torch.where(torch.tensor(self.signs), sign * physics, physics)
        seeds = torch.randint(2**31, (2, count), generator=generator)
        support, query = (Drawn(physics, seeds[i], torch.full((count,), size)) for i, size in enumerate((shot, self.query)))
        return Episode(support, query)

    def sample(self, call: Call, batch: Drawn, draw: int) -> Labelled:
        """Trajectories of the current policy, as observations [n, O] and decisions."""
        return policy_examples(*self._played(call, batch, draw), self.discount)

    def measure(self, call: Call, task: Episode) -> Tensor:
        """The mean over trajectories of the sum of their rewards."""
        _, _, rewards, alive = self._played(call, task.query, 0)
        return mean_return(rewards, alive)

    def _played(self, call: Call, batch: Drawn, draw: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observations [S, H, O], actions, rewards [S, H], and 1 where a trajectory has not ended [S, H]; H is the length of the longest."""
        size, like = int(batch.size.item()), batch.physics
        seed = seed_for(int(batch.seed.item()), "trajectories", draw)
        generator = torch.Generator().manual_seed(seed)
        environment = self._made(size, like)
        observation, _ = environment.reset(seed=seed % 2**31)
        running, steps = np.ones(size, dtype=bool), []
        for _ in range(self.horizon):
            x = torch.as_tensor(np.asarray(observation), dtype=like.dtype, device=like.device)
            noise = torch.rand(size, generator=generator) if self.discrete else torch.randn(size, self.outputs, generator=generator)
            action = self.criterion.act(call(x).logits, noise.to(like))
            controls = action.cpu().numpy()
            observation, reward, terminated, truncated, _ = environment.step(
                controls if self.bounds is None else controls.clip(*self.bounds).astype(self.bounds[0].dtype)
            )
            steps.append((x, action, torch.as_tensor(reward, dtype=like.dtype), torch.as_tensor(running.copy(), dtype=like.dtype)))
            running &= ~(terminated | truncated)
            if not running.any():
                break
        environment.close()
        observations, actions, rewards, alive = (torch.stack(column, 1).to(like.device) for column in zip(*steps))
        return observations, actions, rewards, alive

    def _made(self, size: int, physics: Tensor) -> Any:
        """``size`` environments with these attributes, stepped together."""
        require_extra("gymnasium")
        import gymnasium

        try:
            environment = gymnasium.make_vec(self.env, num_envs=size)
        except gymnasium.error.Error as error:
            raise ValueError(f"env {self.env!r} cannot be made: {error}; give the id of an installed environment") from None
        single_environments = [single.unwrapped for single in environment.unwrapped.envs] if hasattr(environment.unwrapped, "envs") else [environment.unwrapped]
        for name, value in zip(self.physics, physics.tolist()):
            for single in single_environments:
                if not hasattr(single, name):
                    raise ValueError(f"physics names {name!r}, and {type(single).__name__} has no such attribute; name one that its source computes with")
                setattr(single, name, value)
        return environment
