"""Every way to write a search wrongly is answered with its place and the way out."""

from __future__ import annotations

import pytest

from metaflowkit.config.yaml import parse_yaml, to_yaml
from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search, search_of
from tests.search.small import PIPELINE, SPACE, search_file


@pytest.mark.parametrize(
    ("space", "place", "says"),
    [
        ("objective.delt: {low: 1, high: 5}", "5:3", "objective.delt: objective 'bootstrapped_kl' has no such setting; did you mean 'delta'?"),
        ("inner.stepz: [1, 2]", "5:3", "inner.stepz: is no known key; did you mean 'steps'?"),
        ("inner.rule.lr: {low: -1.0, high: 0.5}", "5:24", "inner.rule.lr: must be a number above 0, got -1.0; raise it above 0"),
        ("outer.steps: {low: 1.5, high: 6.0}", "5:22", "outer.steps: must be a whole number of at least 1, got 1.5; write a number such as 5"),
        ("inner.steps: [1, two]", "5:20", "inner.steps: must be a whole number of at least 0, got 'two'; write a number such as 5"),
        ("inner.steps: 3", "5:16", "space.inner.steps: must be a list of choices or {low, high}, got 3; write such as {low: 1, high: 10}"),
        ("inner.steps: [1]", "5:16", "space.inner.steps: must have at least two choices; list them, or put the one value into set"),
        ("inner.steps: [1, 1]", "5:20", "space.inner.steps: has the choice 1 twice; drop one, or give it a label of its own"),
        ("inner.steps: {low: 1}", "5:16", "space.inner.steps.high: is missing; give both bounds, or a list of choices"),
        ("inner.steps: {low: 1, hihg: 4}", "5:25", "space.inner.steps.hihg: is no known key; did you mean 'high'?"),
        ("inner.steps: {low: 4, high: 1}", "5:31", "space.inner.steps.high: must be above low, 4, got 1; swap or widen them"),
        ("inner.steps: {low: 1, high: 4, step: 2}", "5:40", "space.inner.steps.step: must divide 4 - 1, got 2; change the step or a bound"),
        ("inner.steps: {low: 1, high: 5, step: 2, log: true}", "5:40", "space.inner.steps.step: goes without log; keep one of them"),
        ("inner.rule.momentum: {low: 0.0, high: 0.9, log: true}", "5:30", "space.inner.rule.momentum.low: must be above 0 where log is true, got 0"),
        ("inner.steps: {low: 1, high: 4, type: real}", "5:40", "space.inner.steps.type: must be one of int, float, got 'real'"),
        ("inner.steps: {low: 1, high: 4, log: 3}", "5:39", "space.inner.steps.log: must be true or false, got 3"),
        (
            "inner.steps: {low: 2, high: 4}",
            "5:3",
            "space.inner.steps: must contain the pipeline's own value, since the first trial is the pipeline itself; widen it",
        ),
        ("inner.steps: {low: 1, high: .inf}", "5:31", "space.inner.steps.high: must be a number of at most 1e+12 in size, got inf"),
        ("inner.rule: [{value: sgd, spase: {}}, adam]", "5:29", "space.inner.rule.spase: is no known key of a choice; did you mean 'space'?"),
        (
            "inner.rule: [sgd, {value: adam, space: {lrr: {low: 0.1, high: 0.2}}}]",
            "5:43",
            "inner.rule.lrr: rule 'adam' has no such setting; did you mean 'lr'?",
        ),
        ("inner..steps: [1, 2]", "5:3", "space.inner..steps: must be a dotted path of the pipeline, got 'inner..steps'"),
    ],
)
def test_mistakes_in_the_space(tmp_path, space, place, says) -> None:
    path = search_file(tmp_path, space)
    with pytest.raises(ConfigError) as caught:
        read_search(path)
    assert any(problem.startswith(f"{path}:{place}: {says}") for problem in caught.value.problems), caught.value.problems


def test_a_place_inside_another_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"5:3: space.inner.rule.lr: lies inside inner.rule, which is replaced as a whole; put it into the space of a choice"):
        read_search(search_file(tmp_path, "inner.rule.lr: {low: 0.01, high: 0.2}\n  inner.rule: [sgd, adam]"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("metrics: {test/accuracy: maximize}", "metrics: a search never touches test classes, got 'test/accuracy'; use val/accuracy"),
        ("metrics: {val/acuracy: maximize}", "metrics: there is no metric 'val/acuracy'; did you mean 'val/accuracy'?"),
        ("metrics: {val/accuracy: up}", "metrics.val/accuracy: must be one of maximize, minimize, got 'up'"),
        ("metrics: {}", "metrics: must name at least one, got none; write such as {val/accuracy: maximize}"),
        ("metrics: {val/accuracy: maximize, seconds: minimize}", "metrics: several metrics go without pruner, got the pruner 'median'; write pruner: none"),
        ("sampler: tpee", "sampler: there is no sampler 'tpee'; did you mean 'tpe'?"),
        ("pruner: {name: hyperband, reduction_factr: 3}", "pruner.reduction_factr: pruner 'hyperband' has no such setting; did you mean 'reduction_factor'?"),
        ("sampler: grid", "sampler: a grid needs a step or choices here"),
        ("trials: 0", "trials: must be a whole number of at least 1, got 0; raise it to 1"),
        ("trials: 10000000", "trials: must be at most 1000000, got 10000000; lower it"),
        ("workers: 100000", "workers: must be at most 1024, got 100000; lower it"),
        (f"limits: {{seconds: {10**200}}}", "limits.seconds: must be a number of at most 1e+12 in size, got 1000"),
        ("wrokers: 2", "wrokers: is no known key; did you mean 'workers'?"),
        ("name: a/b", "name: must be a name that can be a folder's, got 'a/b'; leave the slash out"),
        ("set: {inner.stps: 3}", "inner.stps: is no known key; did you mean 'steps'?"),
    ],
)
def test_mistakes_beside_the_space(tmp_path, more, says) -> None:
    with pytest.raises(ConfigError) as caught:
        read_search(search_file(tmp_path, SPACE, more))
    assert any(says in problem for problem in caught.value.problems), caught.value.problems
    assert all(str(tmp_path) in problem for problem in caught.value.problems)


def test_a_grid_too_large_is_refused_before_it_is_built(tmp_path) -> None:
    axes = "inner.rule.lr: {low: 0.1, high: 1.0, step: 0.0001}\n  inner.rule.weight_decay: {low: 0.0, high: 1.0, step: 0.0001}"
    with pytest.raises(ConfigError, match=r"sampler: the grid has more than 100,000 points; take fewer, or another sampler"):
        read_search(search_file(tmp_path, axes, "sampler: grid"))


def test_all_mistakes_come_at_once(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_search(
            search_file(tmp_path, "inner.stepz: [1, 2]\n  inner.rule.lr: {low: -1.0, high: 0.5}\n  inner.steps: [1, two]", "metrics: {test/a: maximize}")
        )
    assert len(caught.value.problems) == 4


def test_a_missing_pipeline_and_a_wrong_one(tmp_path) -> None:
    path = search_file(tmp_path, SPACE)
    path.write_text(path.read_text().replace("p.yaml", "q.yaml"))
    with pytest.raises(ConfigError, match=r"pipeline: there is no file .*q.yaml; give its path from this file's folder"):
        read_search(path)
    (tmp_path / "q.yaml").write_text(PIPELINE + "innner: {}\n")
    with pytest.raises(ConfigError, match=r"q.yaml:\d+:1: innner: is no known key; did you mean 'inner'"):
        read_search(path)


def test_the_written_out_search_reads_back_to_the_same(tmp_path) -> None:
    space = "augment: [{value: {level: 1}, label: mild}, {level: 2}]\n  inner.rule: [{value: sgd, space: {lr: {low: 0.01, high: 0.5, log: true}}}, adam]"
    search = read_search(search_file(tmp_path, space, "limits: {seconds: 9}\nset: {inner.steps: 2}"), trials=7)
    again = search_of(parse_yaml(to_yaml(search.written_out()), "again"), "other", tmp_path / "elsewhere")
    assert again.settings.trials == 7
    assert again.pipeline.plain() == search.pipeline.plain()
    assert again.pipeline.inner.steps == 2
    assert again.written_out() == search.written_out()
    assert again.baseline == search.baseline == {"augment": "mild", "inner.rule": "sgd", "inner.rule.lr (sgd)": 0.1}
