"""Environments of Gymnasium: physics reach the environment, trajectories are those that stepping it by hand gives, and what does not fit is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
import gymnasium

from metaflowkit.seeding import seed_for
from metaflowkit.tasks.gym import GymnasiumTasks
from metaflowkit.types import Outputs, task_of


def tilt(x: torch.Tensor) -> Outputs:
    """Pushes to the side to which the pole leans, without chance."""
    score = 1e4 * x[:, 2]
    return Outputs(x, torch.stack([-score, score], 1))


def test_trajectories_are_those_of_the_environment_stepped_by_hand() -> None:
    tasks = GymnasiumTasks(0, shot=3, horizon=50)
    batch = task_of(tasks.episode(1), 0).support
    x, y = tasks.sample(tilt, batch, 2)
    env = gymnasium.make_vec("CartPole-v1", num_envs=3)
    env.unwrapped.force_mag, env.unwrapped.gravity = batch.physics.tolist()
    observed, _ = env.reset(seed=seed_for(int(batch.seed), "trajectories", 2) % 2**31)
    going, alive = np.ones(3, bool), []
    length = len(x) // 3
    for t in range(length):
        np.testing.assert_array_equal(x.reshape(3, length, 4)[:, t].numpy(), observed)
        action = (observed[:, 2] > 0).astype(np.int64)
        assert y.action.reshape(3, length)[:, t].tolist() == action.tolist()
        alive.append(going.copy())
        observed, _, ended, cut, _ = env.step(action)
        going &= ~(ended | cut)
    assert length == 50 or not going.any()
    expected = torch.tensor(np.array(alive).T, dtype=torch.float32)
    torch.testing.assert_close(y.weight.reshape(3, length), expected / expected.sum())


def test_physics_lie_in_their_ranges_and_signs_are_drawn_where_asked() -> None:
    tasks = GymnasiumTasks(0, meta_batch=300)
    force, gravity = tasks.episode(1).support.physics.T
    assert 5 <= force.abs().min() < force.abs().max() <= 15
    assert 100 < (force < 0).sum() < 200
    assert 5 <= gravity.min() < gravity.max() <= 15
    assert not torch.equal(force, tasks.held_out("test", 1, 300, 2).support.physics[:, 0])


def test_continuous_actions() -> None:
    tasks = GymnasiumTasks(0, env="Pendulum-v1", physics={"g": [5.0, 12.0]}, signs=[], shot=2, horizon=7)
    assert (tasks.shape, tasks.outputs, tasks.criterion.discrete) == ((3,), 1, False)
    x, y = tasks.sample(lambda x: Outputs(x, torch.zeros(len(x), 2)), task_of(tasks.episode(1), 0).support, 0)
    assert x.shape == (14, 3)
    assert y.action.shape == (14, 1)
    assert y.advantage.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"env": "Nowhere-v0"}, "env 'Nowhere-v0' cannot be made: .*; give the id of an installed environment"),
        ({"physics": {"colour": [0.0, 1.0]}, "signs": []}, "physics names 'colour', and CartPoleVectorEnv has no such attribute"),
        ({"signs": ["gravty"]}, "signs must name attributes of physics, got gravty"),
    ],
    ids=str,
)
def test_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        GymnasiumTasks(0, **settings)


def test_without_gymnasium_one_line_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r"needs gymnasium, which is not installed; pip install 'metaflowkit\[gymnasium\]'$"):
        GymnasiumTasks(0)
