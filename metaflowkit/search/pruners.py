"""When a trial is given up before its end: Optuna's pruners, fed with validation accuracy at outer steps."""

from __future__ import annotations

from typing import Annotated

import optuna

from metaflowkit.config.registry import PRUNERS
from metaflowkit.config.schema import Count, Natural, Range, Several


@PRUNERS.register("median")
def median(n_startup_trials: Natural = 5, n_warmup_steps: Natural = 0) -> optuna.pruners.BasePruner:
    """Below the median of earlier trials at the same step (optuna.pruners.MedianPruner).

    Args:
        n_startup_trials: trials that must have ended before any is pruned.
        n_warmup_steps: outer steps before which none is pruned.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=n_startup_trials, n_warmup_steps=n_warmup_steps)


@PRUNERS.register("successive_halving")
def successive_halving(min_resource: Count | None = None, reduction_factor: Several = 3) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving (optuna.pruners.SuccessiveHalvingPruner).

    Args:
        min_resource: outer steps that every trial gets; null takes them from the first trial's length.
        reduction_factor: one in so many goes on to so many times the steps.
    """
    return optuna.pruners.SuccessiveHalvingPruner(min_resource="auto" if min_resource is None else min_resource, reduction_factor=reduction_factor)


@PRUNERS.register("hyperband")
def hyperband(outer_steps: int, min_resource: Count = 1, reduction_factor: Several = 3) -> optuna.pruners.BasePruner:
    """Several brackets of successive halving (optuna.pruners.HyperbandPruner).

    Args:
        min_resource: outer steps that every trial of the first bracket gets.
        reduction_factor: one in so many goes on to so many times the steps.
    """
    return optuna.pruners.HyperbandPruner(min_resource=min_resource, max_resource=outer_steps, reduction_factor=reduction_factor)


@PRUNERS.register("wilcoxon")
class Wilcoxon(optuna.pruners.WilcoxonPruner):
    """Worse than the best trial on the same validation episodes by a signed-rank test (optuna.pruners.WilcoxonPruner).

    Args:
        p_threshold: level of the test; larger prunes sooner.
        n_startup_steps: groups of ten episodes that are compared at least.
    """

    reads_episodes = True

    def __init__(self, p_threshold: Annotated[float, Range(0, 1)] = 0.1, n_startup_steps: Natural = 2) -> None:
        super().__init__(p_threshold=p_threshold, n_startup_steps=n_startup_steps)


@PRUNERS.register("none")
class Unpruned(optuna.pruners.NopPruner):
    """Every trial runs to its end."""

    prunes = False
