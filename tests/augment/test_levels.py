"""The presets: each level changes images more than the one before, and a level is short for its printed list."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.augment.levels import level_operations
from metaflowkit.augment.stage import Stage
from metaflowkit.composition.augmentation import operations
from metaflowkit.config.choice import Choice
from metaflowkit.config.describe import describe_components
from metaflowkit.config.pipeline import read
from metaflowkit.datasets.glyphs import Glyphs
from metaflowkit.types import ImageSet


@pytest.mark.parametrize(("sort", "channels"), [("grey", 1), ("color", 3)])
def test_levels_grow_stronger(sort, channels) -> None:
    x = Glyphs().load()["test"].x[::25].float().expand(-1, channels, -1, -1) / 255
    x = x if channels == 1 else x * torch.tensor([0.9, 0.5, 0.2])[:, None, None]
    changes = []
    for level in (1, 2, 3, 4):
        stage = Stage([Choice(node["name"], {k: v for k, v in node.items() if k != "name"}) for node in level_operations(level, sort)], 0, x[:2])
        changes.append(sum((stage(x, "support", "train", step) - x).square().mean().item() for step in range(4)))
    assert changes == sorted(changes)
    assert changes[0] > 0


@pytest.mark.parametrize(("name", "level", "channels"), [("grey3", 3, 1), ("color4", 4, 3)])
def test_a_level_is_short_for_the_list_that_is_printed(write, name, level, channels) -> None:
    like = ImageSet(torch.zeros(1, channels, 4, 4), torch.zeros(0, dtype=torch.int64), ())
    short = read(write(f"dataset: glyphs\naugment: {{level: {level}}}", "short.yaml"))
    listed = read(write("dataset: glyphs\n" + "\n".join(describe_components("level", name)), "listed.yaml"))
    settings = [(c.name, {k: v for k, v in c.settings.items() if k != "apply_to"}) for c in operations(listed, like)]
    assert settings == [(c.name, c.settings) for c in operations(short, like)]


def test_there_is_no_level_five() -> None:
    with pytest.raises(ValueError, match="level must be 1 to 4, got 5"):
        level_operations(5, "grey")
