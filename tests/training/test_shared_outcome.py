"""The meta-gradient that processes compute together, against that of one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.pipeline import read
from metaflowkit.distributed.world import ALONE, World
from metaflowkit.training.shared_outcome import shared_outcome
from metaflowkit.trees import tree_map
from tests import small
from tests.distributed.group import run_in_group

TASKS = small.SMALL.replace("meta_batch: 1", "meta_batch: 4")


def outcome(flow: Flow, world: World):
    """Of the first outer step in float64, as lists."""
    flow = dataclasses.replace(flow, world=world)
    episode = tree_map(lambda x: x.double() if x.is_floating_point() else x, flow.episode(1)[:2])
    result, flag = shared_outcome(flow, flow.learner, flow.episode(1)._replace(support=episode[0], query=episode[1]), world.rank == 1)
    return result.value.item(), {k: v.item() for k, v in result.metrics.items()}, {k: v.numpy() for k, v in result.gradients.items()}, flag


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["inner.engine=higher"],
        ["inner.engine={name: vectorized, chunk: 2}"],
        ["inner.order=first"],
        ["tasks.meta_batch=5"],  # shares of different sizes
    ],
    ids=["auto", "higher", "vmap", "first order", "odd"],
)
def test_gradients_of_1_2_and_4_processes_agree(overrides, write) -> None:
    flow = build(read(write(TASKS), overrides))
    flow.learner.model.double()
    value, metrics, gradients, flag = outcome(flow, ALONE)
    assert not flag
    assert len(metrics) > 1
    for size in (1, 2, 4):
        results = run_in_group(size, lambda world: outcome(flow, world))
        for other_value, other_metrics, other_gradients, other_flag in results:
            assert other_flag == (size > 1)  # one process's flag reaches all
            assert other_value == pytest.approx(value, rel=1e-12)
            assert other_metrics == pytest.approx(metrics, rel=1e-12)
            assert other_gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                error = torch.linalg.vector_norm(torch.from_numpy(other_gradients[name] - gradient)) / torch.linalg.vector_norm(torch.from_numpy(gradient))
                assert error < 1e-6
            assert all((results[0][2][name] == other_gradients[name]).all() for name in gradients)  # the same bits in every process


def test_ordered_gradients_are_the_same_to_the_bit(write) -> None:
    flow = build(read(write(TASKS), ["outer.reduction=ordered"]))
    flow.learner.model.double()
    value, metrics, gradients, _ = outcome(flow, ALONE)
    for size in (1, 2, 4):
        for other_value, other_metrics, other_gradients, _ in run_in_group(size, lambda world: outcome(flow, world)):
            assert (other_value, other_metrics) == (value, metrics)
            assert all((other_gradients[name] == gradient).all() for name, gradient in gradients.items())
