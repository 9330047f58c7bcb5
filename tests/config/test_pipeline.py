"""Bad pipelines give every problem at once, each with its place and what to do; good ones read back equal."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.config import registry
from metaflowkit.config.pipeline import pipeline_of, read
from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("dataset: glyphs\ninnner: {steps: 2}", "2:1: innner", "did you mean 'inner'?"),
        ("dataset: glyphs\ninner: {steps: two}", "2:16: inner.steps", "must be a whole number of at least 0, got 'two'"),
        ("dataset: glyphs\nseed: 1\nseed: 2", "3:1: seed", "given twice, first on line 2"),
        ("dataset: glyfs", "1:10: dataset", "there is no dataset 'glyfs'; did you mean 'glyphs'?"),
        ("dataset: {name: glyphs, facess: []}", "1:25: dataset.facess", "did you mean 'faces'?"),
        ("- 1", "1:1", "must be a mapping of keys to values, got a list"),
        ("dataset: glyphs\ninner: {rule: {name: sgd, lr: -1}}", "2:31: inner.rule.lr", "must be a number above 0, got -1"),
        ("dataset: glyphs\ntasks: {shot: 1}", "2:8: tasks", "has no name"),
        ("dataset: glyphs\ntasks: {name: views, shot: 1}", "2:28: tasks.shot", "must be at least 2"),
        ("dataset: [", "1:11", "is not valid YAML"),
        ("seed: 0", "1:1: dataset", "is missing and has no default"),
    ],
)
def test_each_mistake_is_named_with_its_place(write, text, place, says) -> None:
    path = write(text)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2
    assert f"{path}:{place}" in result.output
    assert says in result.output


def test_missing_empty_and_directory(write, tmp_path) -> None:
    for path, says in [(tmp_path / "no.yaml", "no such file"), (write(""), "is empty"), (tmp_path, "is a directory")]:
        with pytest.raises(ConfigError, match=says):
            read(path)


def test_all_problems_come_together(write) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write("dataset: glyfs\nsead: 1\nouter: {steps: 0}"))
    assert len(caught.value.problems) == 3


def test_overrides_reach_through_bare_names(write) -> None:
    pipeline = read(write("dataset: glyphs\ninner: {rule: sgd}"), ["inner.rule.lr=1e-3", "objective=query_loss"])
    assert pipeline.inner.rule.settings["lr"] == 1e-3
    assert pipeline.objective.name == "query_loss"
    with pytest.raises(ConfigError, match="must be path=value"):
        read(write("dataset: glyphs"), ["inner.steps"])


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("objective.delta=3", lambda p: p.objective, "bootstrapped_kl", 3),
        ("inner.rule.lr=0.3", lambda p: p.inner.rule, "sgd", 0.3),
        ("inner.order.name=first", lambda p: p.inner.order, "first", "first"),
        ("model.backbone.width=9", lambda p: p.model.backbone, "conv4", 9),
        ("model.head.temperature=0.7", lambda p: p.model.head, "prototype", 0.7),
        ("tasks.way=7", lambda p: p.tasks, "views", 7),
        ("inner.loss.temperature=0.2", lambda p: p.inner.loss, "contrastive", 0.2),
        ("outer.optimizer.lr=0.01", lambda p: p.outer.optimizer, "adam", 0.01),
    ],
)
def test_an_override_enters_a_component_that_stands_by_default(write, override, section, name, value) -> None:
    choice, untouched = section(read(write("dataset: glyphs"), [override])), section(read(write("dataset: glyphs")))
    key = override.partition("=")[0].rpartition(".")[2]
    assert choice.name == name
    assert {**choice.settings, "name": choice.name}[key] == value
    assert name != untouched.name or choice.settings == {**untouched.settings, key: value}


def test_an_override_that_fits_no_default_is_answered_with_its_place(write) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write("dataset: glyphs"), ["objective.dleta=3", "dataset.name=glyphs", "tasks.way=one"])
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "--set objective.dleta=3: objective.dleta: objective 'bootstrapped_kl' has no such setting",
        "--set tasks.way=one: tasks.way: must be a whole number of at least 2, got 'one'",
    ]


def test_a_value_that_is_no_component_is_unknown_to_later_files() -> None:
    with pytest.raises(ConfigError, match=r"there is no tasks 3\.5"):
        pipeline_of({"tasks": 3.5})  # without a data set, of which the tasks are asked whether they need one
    assert registry.TASKS.objects == {}


def test_a_name_longer_than_the_system_allows_is_no_file(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / ("x" * 300))
    (tmp_path / "s.yaml").write_text(f"pipeline: {'x' * 5000}\nspace: {{inner.steps: [1, 2]}}\n")
    with pytest.raises(ConfigError, match="pipeline: there is no file"):
        read_search(tmp_path / "s.yaml")
