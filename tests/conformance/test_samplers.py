"""Every sampler suggests points of the space, and the same ones for the same seed."""

from __future__ import annotations

import optuna
import pytest

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import SAMPLERS
from metaflowkit.search.storage import experimental

NAMES = sorted(SAMPLERS.entries())
EARLY = {"n_startup_trials": 3, "population_size": 2}  # so that a few trials suffice to leave the random start


def points(name: str, seed: int) -> list[dict]:
    settings = {key: value for key, value in EARLY.items() if key in SAMPLERS.entries()[name].settings}

    def objective(trial: optuna.Trial) -> float:
        x, rate = trial.suggest_float("x", -1.0, 2.0), trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        return (x - 0.5) ** 2 + rate + trial.suggest_int("steps", 1, 9, step=2) + len(trial.suggest_categorical("rule", ["sgd", "adam"]))

    with experimental():
        study = optuna.create_study(sampler=SAMPLERS.build(Choice(name, settings), seed=seed))
        study.optimize(objective, n_trials=4)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", NAMES)
def test_points_lie_in_the_space_and_follow_from_the_seed(name) -> None:
    drawn = points(name, seed=0)
    for point in drawn:
        assert -1.0 <= point["x"] <= 2.0
        assert 1e-4 <= point["rate"] <= 1e-1
        assert point["steps"] in (1, 3, 5, 7, 9)
        assert point["rule"] in ("sgd", "adam")
    assert len({point["x"] for point in drawn}) > 1
    assert points(name, seed=0) == drawn
    assert points(name, seed=1) != drawn
