"""The registry asks of a component what its kind's protocol says, and takes the tags that stand there."""

from __future__ import annotations

import inspect

import pytest

from metaflowkit.augment.base import Augmentation, LearnedAugmentation
from metaflowkit.config import registry as r
from metaflowkit.datasets.base import DataSet
from metaflowkit.engines.base import Engine
from metaflowkit.evaluation.readouts import Readout
from metaflowkit.losses.base import Loss
from metaflowkit.models.backbones.base import Backbone
from metaflowkit.models.heads.base import Head
from metaflowkit.objectives.base import Objective
from metaflowkit.orders.base import Order
from metaflowkit.rules.base import Rule
from metaflowkit.tasks.base import MeasuredTasks, Tasks
from metaflowkit.training.metric_loggers import MetricLogger
from metaflowkit.training.schedules import Schedule

CONTRACTS = {
    r.DATASETS: DataSet, r.TASKS: Tasks, r.BACKBONES: Backbone, r.HEADS: Head, r.RULES: Rule, r.LOSSES: Loss, r.OBJECTIVES: Objective,
    r.AUGMENTATIONS: Augmentation, r.LEARNED_AUGMENTATIONS: LearnedAugmentation,
    r.ORDERS: Order, r.ENGINES: Engine, r.READOUTS: Readout, r.SCHEDULES: Schedule, r.METRIC_LOGGERS: MetricLogger,
}  # fmt: skip


def tags_of(protocol) -> dict[str, object]:
    """The class-level constants of a protocol."""
    return {n: v for n, v in vars(protocol).items() if not n.startswith("_") and not callable(v) and not isinstance(v, property)}


@pytest.mark.parametrize(("kind", "protocol"), CONTRACTS.items(), ids=lambda x: getattr(x, "name", ""))
def test_methods_attributes_and_tags(kind, protocol) -> None:
    for method in kind.methods:
        name, _, arguments = method.rstrip(")").partition("(")
        parameters = list(inspect.signature(getattr(protocol, name)).parameters)[1:]
        assert parameters == [argument for argument in arguments.split(", ") if argument]
    public = tags_of(protocol)
    further = {r.TASKS: tags_of(MeasuredTasks) | {"measured": False}}.get(kind, {})  # that protocol's own value is what distinguishes it
    assert {**further, **public} == dict(kind.tags)
    annotated = set(inspect.get_annotations(protocol)) - set(kind.tags) - {"description"}
    assert annotated == set(kind.attributes)


@pytest.mark.parametrize("member", [member for members in r.TASKS.asked.values() for member in members])
def test_what_is_asked_of_measured_tasks_stands_in_their_protocol(member) -> None:
    name, _, arguments = member.rstrip(")").partition("(")
    if not member.endswith(")"):
        assert name in inspect.get_annotations(MeasuredTasks)
        return
    assert list(inspect.signature(getattr(MeasuredTasks, name)).parameters)[1:] == arguments.split(", ")
