"""Every shipped YAML is checked, reads back equal, is built, and takes one outer step on data in its data set's form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaflowkit.augment.levels import level_operations
from metaflowkit.composition import suggestion
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.search.specification import read_search

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "pipelines").rglob("*.yaml"))
SEARCHES = sorted((ROOT / "search").rglob("*.yaml"))


@pytest.fixture
def overrides(strokes, fields, questions):
    texts = [f"dataset.root={questions}", "dataset.train=[money]", "dataset.val=[home]", "dataset.test=[travel]"]
    return {
        "omniglot": [f"dataset.root={strokes}", "dataset.split=lake"],
        "folder": [f"dataset.root={fields}", "dataset.split_files=null", "evaluate={way: 2, shot: 1}"],
        "clinc150": [*texts, "evaluate={way: 2, shot: 1}", "tasks.way=20"],
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_opens_with_its_launch_line_and_an_override_that_works(path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first.startswith(f"# mfk run {path.relative_to(ROOT)}")
    assert second.startswith("# one override to try: --set ")
    changed = read(path, [second.rpartition(" ")[2]])
    assert changed.plain() != read(path).plain()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_reads_back_equal_builds_and_steps(path, write, overrides) -> None:
    chosen = read(path)
    if chosen.tasks.name == "gymnasium":
        pytest.importorskip("gymnasium")
    sizes = {"meta_batch": 1, "horizon": 5, "way": min(20, chosen.tasks.settings.get("way", 0))}
    fewer = [f"tasks.{key}={value}" for key, value in sizes.items() if key in chosen.tasks.settings]
    pipeline = read(path, [*overrides.get(chosen.dataset.name if chosen.dataset else "", []), *fewer])
    assert read(write(pipeline.to_yaml())).plain() == pipeline.plain()
    flow = build(pipeline)
    episode = flow.episode(1)
    outcome = flow.learner.outcome(episode)
    if not flow.measured:
        assert episode.support.x.shape[:2] == (1, pipeline.tasks.settings["way"] * pipeline.tasks.settings["shot"])
    assert outcome.value.isfinite()
    norms = {name: g.norm().item() for name, g in outcome.gradients.items()}
    assert all(torch.isfinite(g).all() for g in outcome.gradients.values())
    assert sum(norms.values()) > 0


@pytest.mark.parametrize("name", ["lake", "vinyals"])
def test_omniglot_is_augmented_as_mfk_init_suggests_for_ink(name) -> None:
    operations = read(ROOT / "pipelines" / f"omniglot_protoclr_{name}.yaml").plain()["augment"]
    assert operations == [suggestion._elastic(32), *level_operations(suggestion.LEVEL, "grey")]


@pytest.mark.parametrize("path", SEARCHES, ids=lambda p: p.stem)
def test_searches_open_with_their_launch_line_and_their_baseline_builds_and_steps(path, overrides) -> None:
    assert path.read_text().startswith(f"# mfk search {path.relative_to(ROOT)}")
    search = read_search(path)
    search = read_search(path, [*overrides.get(search.pipeline.dataset.name, []), "tasks.meta_batch=1"])
    flow = build(search.at([]))
    assert flow.learner.outcome(flow.episode(1)).value > 0
