"""The registry asks of a component what its kind's protocol says, and takes the tags that stand there."""

from __future__ import annotations

import inspect

import pytest

from metaflowkit.augment.base import Augmentation, LearnedAugmentation
from metaflowkit.config import registry as r
from metaflowkit.datasets.base import DataSet
from metaflowkit.engines.base import Engine
from metaflowkit.evaluation.base import Readout
from metaflowkit.losses.base import Loss
from metaflowkit.models.adapters.base import Adapter
from metaflowkit.models.backbones.base import Backbone
from metaflowkit.models.heads.base import Head
from metaflowkit.objectives.base import Objective
from metaflowkit.orders.base import Order
from metaflowkit.rules.base import Rule
from metaflowkit.search.base import Pruner, Sampler
from metaflowkit.tasks.base import MeasuredTasks, Tasks
from metaflowkit.training.base import MetricLogger, OuterOptimizer, Schedule

CONTRACTS = {
    r.DATASETS: DataSet, r.TASKS: Tasks, r.BACKBONES: Backbone, r.ADAPTERS: Adapter, r.HEADS: Head, r.RULES: Rule, r.LOSSES: Loss, r.OBJECTIVES: Objective,
    r.AUGMENTATIONS: Augmentation, r.LEARNED_AUGMENTATIONS: LearnedAugmentation,
    r.ORDERS: Order, r.ENGINES: Engine, r.READOUTS: Readout, r.SCHEDULES: Schedule, r.METRIC_LOGGERS: MetricLogger,
    r.OPTIMIZERS: OuterOptimizer, r.SAMPLERS: Sampler, r.PRUNERS: Pruner,
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
    properties = {name for name, value in vars(protocol).items() if isinstance(value, property)}
    assert (set(inspect.get_annotations(protocol)) | properties) - set(kind.tags) == set(kind.attributes)


def test_every_kind_has_a_contract_in_the_base_module_of_its_folder() -> None:
    assert set(CONTRACTS) == set(r.KINDS.values())
    for kind, protocol in CONTRACTS.items():
        folder, base = kind.module.rsplit(".", 1)[0], protocol.__module__
        assert base in (f"{kind.module}.base", f"{folder}.base"), kind.name


@pytest.mark.parametrize("kind", [r.OPTIMIZERS, r.SAMPLERS, r.PRUNERS], ids=lambda kind: kind.name)
def test_what_makes_an_object_of_another_library_is_called_with_what_the_builder_passes(kind) -> None:
    injected = tuple(inspect.signature(CONTRACTS[kind].__call__).parameters)[1:]
    assert kind.injected[: len(injected)] == injected
    assert kind.injected[len(injected) :] == (("params",) if kind is r.OPTIMIZERS else ())  # another name for the same


@pytest.mark.parametrize("member", [member for members in r.TASKS.tag_members.values() for member in members])
def test_what_is_asked_of_measured_tasks_stands_in_their_protocol(member) -> None:
    name, _, arguments = member.rstrip(")").partition("(")
    if not member.endswith(")"):
        assert name in inspect.get_annotations(MeasuredTasks)
        return
    assert list(inspect.signature(getattr(MeasuredTasks, name)).parameters)[1:] == arguments.split(", ")
