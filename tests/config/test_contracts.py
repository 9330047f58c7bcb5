"""The registry asks of a component what its kind's protocol says, and takes the tags that stand there."""

from __future__ import annotations

import inspect

import pytest

from metaflowkit.config import registry as r
from metaflowkit.datasets.base import DataSet
from metaflowkit.engines.base import Engine
from metaflowkit.losses.base import Loss
from metaflowkit.models.backbones.base import Backbone
from metaflowkit.models.heads.base import Head
from metaflowkit.objectives.base import Objective
from metaflowkit.orders.base import Order
from metaflowkit.rules.base import Rule
from metaflowkit.tasks.base import Tasks

CONTRACTS = {
    r.DATASETS: DataSet, r.TASKS: Tasks, r.BACKBONES: Backbone, r.HEADS: Head, r.RULES: Rule, r.LOSSES: Loss, r.OBJECTIVES: Objective,
    r.ORDERS: Order, r.ENGINES: Engine,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "protocol"), CONTRACTS.items(), ids=lambda x: getattr(x, "name", ""))
def test_methods_attributes_and_tags(kind, protocol) -> None:
    for method in kind.methods:
        name, _, arguments = method.rstrip(")").partition("(")
        parameters = list(inspect.signature(getattr(protocol, name)).parameters)[1:]
        assert parameters == [argument for argument in arguments.split(", ") if argument]
    public = {name for name, value in vars(protocol).items() if not name.startswith("_") and not callable(value) and not isinstance(value, property)}
    assert {name: getattr(protocol, name) for name in public} == dict(kind.tags)
    annotated = set(inspect.get_annotations(protocol)) - set(kind.tags) - {"description"}
    assert annotated == set(kind.attributes)
