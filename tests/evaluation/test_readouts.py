"""Readouts against their formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from metaflowkit.augment.stage import Stage
from metaflowkit.composition.augmentation import level_choices
from metaflowkit.composition.flow import build
from metaflowkit.config.choice import Choice
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.base import Shown
from metaflowkit.evaluation.episodes import evaluate, shown_tasks
from metaflowkit.evaluation.readouts import AveragedReadout, PrototypeReadout
from metaflowkit.types import Labelled
from tests.small import SMALL

GROUP = "model.backbone.norm=group"


def shown(*overrides: str) -> Shown:
    flow = build(pipeline_of(parse_yaml(SMALL, "small.yaml").plain(), overrides))
    return dataclasses.replace(shown_tasks(flow, "test", 3, 2, 3, 4)(0), features=None)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_averaged_features_are_the_mean_over_the_same_changes_of_every_image(level) -> None:
    here = shown(GROUP)
    operations = [Choice(choice.name, {**choice.settings, "same_on_batch": True}) for choice in level_choices(level, "grey")]
    stage, model = Stage(operations, 0, torch.zeros(2, *here.flow.shape)), here.flow.model

    def features(x):  # one image after the other
        return torch.stack(
            [torch.stack([model.backbone(stage(image[None], "support", "averaged", v))[0] for v in range(3)]).sum(0) for image in x]
        ) + model.backbone(x)

    readout = AveragedReadout(views=3, level=level)
    expected = []
    for t in range(4):
        means = features(here.episode.support.x[t])
        means = torch.stack([means[here.episode.support.y[t] == c].mean(0) for c in range(3)])
        expected.append(torch.nn.functional.cosine_similarity(features(here.episode.query.x[t])[:, None], means[None], dim=2))
    torch.testing.assert_close(readout(here), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(readout(here), PrototypeReadout()(here), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_change_is_the_same_whatever_is_beside_an_image(channels, level) -> None:
    operations = level_choices(level, "grey" if channels == 1 else "color")
    same = [Choice(choice.name, {**choice.settings, "same_on_batch": True}) for choice in operations]
    stage, x = Stage(same, 0, torch.zeros(2, channels, 16, 16)), torch.rand(6, channels, 16, 16)
    together = stage(x, "support", "averaged", 1)
    for i in range(6):
        torch.testing.assert_close(stage(x[i : i + 1], "support", "averaged", 1)[0], together[i])
    assert not torch.allclose(together, x, atol=1e-2)


def test_an_answer_depends_on_no_other_query() -> None:
    here = shown(GROUP)
    alone = here.episode._replace(query=Labelled(here.episode.query.x[:, :1], here.episode.query.y[:, :1]))
    torch.testing.assert_close(AveragedReadout()(Shown(here.flow, alone, "x", 0)), AveragedReadout()(here)[:, :1], rtol=1e-4, atol=1e-5)


def test_it_is_of_images_alone() -> None:
    flow = build(pipeline_of({**parse_yaml(SMALL, "s.yaml").plain()}))
    object.__setattr__(flow.interface, "shape", (5,))
    with pytest.raises(ConfigError, match=r"'averaged' augments grey and colour images, got examples of shape \(5,\); choose prototype"):
        evaluate(flow, "test", 3, 1, 2, 4, ["averaged"])
