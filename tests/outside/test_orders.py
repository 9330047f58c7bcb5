"""Orders of one's own run in every engine, carry the tags of the class that they derive from, and are refused where they break the contract."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from tests.small import SMALL

PLUGIN = "plugins: [tests.outside.orders]\n"
ENGINES = ["auto", "higher", "{name: vectorized, chunk: 1}", "vectorized"]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_order_of_ones_own_decides_the_gradient(write, engine) -> None:
    flow = build(read(write(PLUGIN + SMALL), ["inner.order={name: outside_signs, size: 3}", f"inner.engine={engine}", "tasks.meta_batch=1"]))
    outcome = flow.learner.outcome(flow.episode(1))
    assert set(outcome.gradients) == {name for name, _ in flow.learner.model.named_parameters()}
    assert all(torch.isin(g.abs(), torch.tensor([0.0, 3.0])).all() for g in outcome.gradients.values())
    assert outcome.metrics["size"] == 3
    reptile = build(read(write(SMALL), ["inner.order=reptile", "tasks.meta_batch=1"])).learner.outcome(flow.episode(1)).gradients
    for name, gradient in outcome.gradients.items():
        large = reptile[name].abs() > 1e-6  # the sign of what is nearly zero is a matter of rounding
        assert torch.equal(gradient[large], 3 * reptile[name][large].sign())


def test_tags_are_inherited(write) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write(PLUGIN + SMALL), ["inner.order=outside_implicit"])
    assert "inner.proximal" in str(caught.value)
    flow = build(read(write(PLUGIN + SMALL), ["inner.order=outside_implicit", "inner.proximal=1.0"]))
    assert flow.learner.order.iterations == 2
    assert all(g.isfinite().all() for g in flow.learner.outcome(flow.episode(1)).gradients.values())


def test_an_order_without_gradient_says_what_is_missing(write) -> None:
    with pytest.raises(ConfigError) as caught:
        build(read(write(PLUGIN + SMALL), ["inner.order=outside_nothing"]))
    assert str(caught.value).endswith(
        "inner.order: order 'outside_nothing' must define gradient(loop, meta), and tests.outside.orders.Nothing does not; add it"
    )
