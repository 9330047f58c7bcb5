"""Every pruner keeps the best trial, and ends a hopeless one early where its tag says that it prunes."""

from __future__ import annotations

import random

import optuna
import pytest

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import PRUNERS
from metaflowkit.search.storage import experimental

STEPS = 5
ENTRIES = PRUNERS.entries()


def run(study: optuna.Study, value: float) -> bool:
    """Run a trial whose validations are all about this value, by groups of episodes where the pruner compares those; whether it was ended."""
    trial = study.ask()
    noise = random.Random(trial.number)  # differences between trials without ties, for which a signed-rank test would permute
    for step in range(1, STEPS):
        for group in range(4):
            trial.report(value + noise.uniform(0, 0.005), step * 1000 + group if study.user_attrs["grouped"] else step)
            if not study.user_attrs["grouped"]:
                break
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return True
    study.tell(trial, value)
    return False


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_best_trial_goes_on_and_hopeless_ones_end_as_the_tag_says(name) -> None:
    with experimental():
        pruner = PRUNERS.build(Choice(name), outer_steps=STEPS)
        study = optuna.create_study(direction="maximize", pruner=pruner, study_name="pruners")  # the name decides the brackets of hyperband
        study.set_user_attr("grouped", ENTRIES[name].tags["reads_episodes"])
        assert not any(run(study, 0.5 + i / 100) for i in range(6))  # each better than those before it
        assert not run(study, 0.9)
        hopeless = [run(study, 0.1) for _ in range(4)]
    assert any(hopeless) is ENTRIES[name].tags["prunes"]
