"""What a trial sets, what the baseline is, what a grid holds."""

from __future__ import annotations

import optuna
import pytest

from metaflowkit.search.distributions import suggest
from metaflowkit.search.specification import read_search
from tests.search.small import search_file

CONDITIONAL = """inner.rule:
    choices:
      - {value: sgd, space: {lr: {low: 0.01, high: 0.5, log: true}, momentum: [0.0, 0.9]}}
      - {value: {name: adam, eps: 0.01}, label: adam, space: {lr: {low: 0.001, high: 0.01}}}
  inner.steps: {low: 0, high: 4, step: 2}
  objective.delta: [1, 5]"""


def _pipeline(search, point):
    return search.at(suggest(optuna.trial.FixedTrial(point), search.axes))


@pytest.fixture
def search(tmp_path):
    return read_search(search_file(tmp_path, CONDITIONAL, "set: {inner.steps: 2}"))


def test_the_settings_of_a_choice_come_with_it_and_do_not_leak_into_another(search) -> None:
    point = {"inner.rule": "adam", "inner.rule.lr (adam)": 0.002, "inner.steps": 4, "objective.delta": 5}
    inner = _pipeline(search, point).inner
    assert (inner.rule.name, inner.rule.settings["lr"], inner.rule.settings["eps"], inner.steps) == ("adam", 0.002, 0.01, 4)
    point = {"inner.rule": "sgd", "inner.rule.lr (sgd)": 0.2, "inner.rule.momentum (sgd)": 0.9, "inner.steps": 0, "objective.delta": 1}
    inner = _pipeline(search, point).inner
    assert (inner.rule.name, inner.rule.settings["lr"], inner.rule.settings["momentum"], inner.steps) == ("sgd", 0.2, 0.9, 0)


def test_the_baseline_is_the_pipeline_itself(search) -> None:
    assert search.baseline == {"inner.rule": "sgd", "inner.rule.lr (sgd)": 0.1, "inner.rule.momentum (sgd)": 0.0, "inner.steps": 2, "objective.delta": 5}
    assert _pipeline(search, search.baseline).plain() == search.pipeline.plain()


def test_every_suggestion_is_a_possible_pipeline_within_its_bounds(search) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        inner = search.at(suggest(trial, search.axes)).inner
        low, high = {"sgd": (0.01, 0.5), "adam": (0.001, 0.01)}[inner.rule.name]
        assert low <= inner.rule.settings["lr"] <= high
        seen.add((inner.rule.name, inner.steps))
        study.tell(trial, 0.0)
    assert seen == {(rule, steps) for rule in ("sgd", "adam") for steps in (0, 2, 4)}


def test_a_grid_holds_every_point_once_and_the_baseline_first(tmp_path) -> None:
    space = "inner.rule:\n    choices:\n      - {value: sgd, space: {lr: {low: 0.1, high: 0.3, step: 0.1}}}\n      - adam\n  inner.steps: {low: 1, high: 2}"
    search = read_search(search_file(tmp_path, space, "sampler: grid\ntrials: 3"))
    points = search.points
    assert search.trials == len(points) == (3 + 1) * 2
    assert points[0] == search.baseline
    assert len({tuple(sorted(p.items(), key=str)) for p in points}) == 8
    assert sorted(round(p["inner.rule.lr (sgd)"], 9) for p in points if p["inner.rule"] == "sgd") == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


def test_numbers_and_words_of_one_spelling_are_different_choices(tmp_path) -> None:
    search = read_search(
        search_file(tmp_path, "augment.level: [1, 2]\n  model.backbone: [{value: conv4, label: '1'}, {value: {name: conv4, width: 4}, label: '2'}]")
    )
    assert search.baseline == {"augment.level": 1, "model.backbone": "2"}
