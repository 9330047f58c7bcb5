"""Navigation against its definition, by a policy whose walk is a closed form; purity in seed, step and draw; the engines agree on its gradients."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.few_shot import BatchLoss
from metaflowkit.criteria import Policy
from metaflowkit.doctor.plain_loop import plain_outcome
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.task import TaskLoss
from metaflowkit.models.backbones.mlp import MLP
from metaflowkit.models.heads.normal import Normal
from metaflowkit.models.model import Model
from metaflowkit.objectives import BootstrappedKL, QueryLoss
from metaflowkit.rules import SGD
from metaflowkit.tasks.navigation import Navigation
from metaflowkit.trees import tree_map
from metaflowkit.types import Episode, Outputs, task_of
from tests.oracles import relative


def still(mean: tuple[float, float], deviation: float = 0.0):
    """A policy that always moves alike."""
    log = torch.full((2,), deviation).log().clamp_min(-30)
    return lambda x: Outputs(x, torch.cat([torch.tensor(mean).expand(len(x), 2), log.expand(len(x), 2)], 1))


def test_the_return_of_a_straight_walk_is_a_sum_of_squares() -> None:
    tasks = Navigation(0, horizon=6)
    task = task_of(tasks.held_out("test", 0, 1, 3), 0)
    goal = torch.tensor([0.3, -0.2])
    task = task._replace(query=task.query._replace(goal=goal))
    move = torch.tensor([0.05, -0.1])  # the second is clipped from -0.7
    expected = -sum((goal - t * move).square().sum() for t in range(1, 7))
    torch.testing.assert_close(tasks.measure(still((0.05, -0.7)), task), expected, rtol=1e-5, atol=1e-6)


def test_a_walk_ends_where_it_reaches_its_goal() -> None:
    tasks = Navigation(0, horizon=6, shot=2)
    walks = task_of(tasks.episode(1), 0).support._replace(goal=torch.tensor([0.2, 0.0]))
    x, y = tasks.sample(still((0.1, 0.0)), walks, 0)
    assert y.weight.reshape(2, 6).tolist() == [[0.25, 0.25, 0, 0, 0, 0]] * 2  # the second move arrives
    torch.testing.assert_close(x.reshape(2, 6, 2)[0, :2], torch.tensor([[0.0, 0.0], [0.1, 0.0]]))
    assert y.weight.sum() == 1


def test_everything_random_belongs_to_seed_step_and_draw() -> None:
    tasks = Navigation(0, shot=2, query=2, meta_batch=3, horizon=4)
    support = task_of(tasks.episode(1), 0).support
    policy = still((0.0, 0.0), 0.1)
    first = tasks.sample(policy, support, 0)
    assert torch.equal(first.x, tasks.sample(policy, support, 0).x)
    others = [
        tasks.sample(policy, support, 1),
        tasks.sample(policy, task_of(tasks.episode(1), 0).query, 0),
        tasks.sample(policy, task_of(tasks.episode(2), 0).support, 0),
    ]
    others.append(tasks.sample(policy, task_of(Navigation(1, shot=2, query=2, meta_batch=3, horizon=4).episode(1), 0).support, 0))
    assert not any(torch.equal(first.x, other.x) for other in others)
    goals = torch.cat([tasks.episode(step).support.goal for step in range(200)])
    assert goals.abs().max() <= 0.5
    assert goals.abs().mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("objective", [QueryLoss(), BootstrappedKL(2)], ids=["query", "bootstrap"])
def test_engines_and_a_plain_loop_agree_on_gradients_through_drawn_trajectories(objective) -> None:
    torch.manual_seed(0)
    tasks = Navigation(0, shot=3, query=3, meta_batch=2, horizon=4)
    model = Model(MLP((2,), [6, 5], "relu"), Normal(5, 2)).double()
    adapts = frozenset(name for name, _ in model.named_parameters())
    learner = MetaLearner(
        model, SGD(lr=0.003), BatchLoss(TaskLoss(Policy(False))), objective, 2, VectorizedEngine(), adapts=adapts, arguments=Model.arguments_alone,
        sample=tasks.sample, criterion=tasks.criterion,
    )  # fmt: skip
    drawn = tasks.episode(1)
    episode = Episode(*(tree_map(torch.Tensor.double, walks) for walks in (drawn.support, drawn.query)))
    reference = plain_outcome(learner, episode)
    assert sum(g.norm() for g in reference.gradients.values()) > 1e-4
    for engine in (VectorizedEngine(), VectorizedEngine(1, 2), HigherEngine()):
        outcome = engine.outcome(learner, episode)
        assert relative(outcome.gradients, reference.gradients) < 1e-9
        torch.testing.assert_close(outcome.value, reference.value)
