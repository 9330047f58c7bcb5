"""Every shipped YAML is checked, reads back equal, is built, and takes one outer step on data in its data set's form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaflowkit.flow import build
from metaflowkit.pipeline import read

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.yaml"), *(ROOT / "search").rglob("*.yaml")])


@pytest.fixture
def overrides(strokes, fields):
    return {"omniglot": [f"dataset.root={strokes}"], "folder": [f"dataset.root={fields}"]}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_opens_with_its_launch_line_and_an_override_that_works(path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first.startswith(f"# mfk run {path.relative_to(ROOT)}")
    assert second.startswith("# one override to try: --set ")
    changed = read(path, [second.rpartition(" ")[2]])
    assert changed.plain() != read(path).plain()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_reads_back_equal_builds_and_steps(path, write, overrides) -> None:
    pipeline = read(path, [*overrides.get(read(path).dataset.name, []), "tasks.meta_batch=1"])
    assert read(write(pipeline.to_yaml())).plain() == pipeline.plain()
    flow = build(pipeline)
    episode = flow.episode(1)
    outcome = flow.learner.outcome(episode)
    assert episode.support.x.shape[:2] == (1, pipeline.tasks.settings["way"] * pipeline.tasks.settings["shot"])
    assert outcome.value > 0
    norms = {name: g.norm().item() for name, g in outcome.gradients.items()}
    assert all(torch.isfinite(g).all() for g in outcome.gradients.values())
    assert sum(norms.values()) > 0
