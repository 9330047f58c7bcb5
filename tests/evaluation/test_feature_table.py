"""Features computed once for all episodes: the same scores as episode by episode, and fewer images through the network."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.evaluation import episodes
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.feature_table import feature_table
from metaflowkit.models.backbones.conv4 import Conv4
from tests.small import SMALL

MANY = 10**9  # examples shown


def flow_of(norm: str):
    return build(pipeline_of(parse_yaml(SMALL, "small.yaml").plain(), [f"model.backbone.norm={norm}"]))


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """The numbers of images in each call of a backbone."""
    counts: list[int] = []
    forward = Conv4.forward
    monkeypatch.setattr(Conv4, "forward", lambda self, x: (counts.append(len(x)), forward(self, x))[1])
    return counts


@pytest.mark.parametrize("norm", [pytest.param("group", marks=pytest.mark.slow), "per_step", pytest.param("frozen", marks=pytest.mark.slow)])
def test_scores_are_those_of_episode_by_episode(norm, seen, monkeypatch) -> None:
    flow, count = flow_of(norm), len(flow_of(norm).splits["test"].x)
    names = ["prototype", "logistic", "averaged", "adapted"]
    once = evaluate(flow, "test", 5, 2, 10, 40, names)
    seen.clear()
    plain_only = evaluate(flow, "test", 5, 1, 10, 40, ["prototype", "logistic"])
    assert sum(seen) == 0  # another setting by the same weights
    monkeypatch.setattr(episodes, "feature_table", lambda *arguments: None)
    by_episode = evaluate(flow, "test", 5, 2, 10, 40, names)
    for one, other in zip(once, by_episode):
        assert one.setting == other.setting
        assert one.each == pytest.approx(other.each, abs=1 / 50)  # a tie that rounding decides
        assert sum(a != b for a, b in zip(one.each, other.each)) <= 1
    seen.clear()
    assert [s.each for s in evaluate(flow, "test", 5, 1, 10, 40, ["prototype", "logistic"])] == [pytest.approx(s.each, abs=1 / 50) for s in plain_only]
    assert sum(seen) >= 40 * 5 * 11 > count


def test_each_image_goes_through_the_network_once(seen) -> None:
    flow = flow_of("group")
    count = len(flow.splits["test"].x)
    seen.clear()
    evaluate(flow, "test", 5, 1, 10, 600, ["prototype"])
    assert count <= sum(seen) <= count + 100  # and a few to try whether sets matter


def test_other_weights_are_other_features() -> None:
    flow = flow_of("group")
    before, every = feature_table(flow, "test", MANY), torch.arange(len(flow.splits["test"].x))[None]
    assert feature_table(flow, "test", MANY) is before
    with torch.no_grad():
        flow.model.backbone.blocks[0].conv.weight.data.mul_(1.5)  # ``data`` leaves no trace in torch's version counters
    after = feature_table(flow, "test", MANY)
    assert not torch.allclose(before(every), after(every), atol=1e-4)
    assert feature_table(flow, "val", MANY)(every[:, :3]).shape == (1, 3, flow.model.backbone.features)
    torch.testing.assert_close(after(every[:, 7:9])[0], flow.model.backbone(flow.inputs(flow.splits["test"].x[7:9])), rtol=1e-4, atol=1e-5)


def test_where_few_images_are_shown_or_hooks_run_there_is_none() -> None:
    stored = flow_of("per_step")
    assert feature_table(stored, "test", len(stored.splits["test"].x) - 1) is None
    assert feature_table(stored, "test", MANY) is not None
    scores = {statistics: evaluate(stored, "test", 5, 1, 10, 40, ["prototype"], statistics)[0] for statistics in ("stored", "current")}
    assert scores["stored"].each != scores["current"].each
    handle = stored.model.backbone.blocks[0].register_forward_hook(lambda module, inputs, output: None)
    assert feature_table(stored, "test", MANY) is None  # a hook may count calls
    handle.remove()
