"""When a trial is given up before its end: Optuna's pruners, fed with validation accuracy at outer steps."""

from __future__ import annotations

from typing import Annotated

import optuna

from metaflowkit.config.registry import PRUNERS
from metaflowkit.config.schema import Count, Natural, Range, Several


@PRUNERS.register("median")
def median(startup: Natural = 5, warmup: Natural = 0) -> optuna.pruners.BasePruner:
    """Below the median of earlier trials at the same step (optuna.pruners.MedianPruner).

    Args:
        startup: trials that must have ended before any is pruned.
        warmup: outer steps before which none is pruned.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)


@PRUNERS.register("successive_halving")
def successive_halving(least: Count | None = None, factor: Several = 3) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving (optuna.pruners.SuccessiveHalvingPruner).

    Args:
        least: outer steps that every trial gets; null takes them from the first trial's length.
        factor: one in so many goes on to so many times the steps.
    """
    return optuna.pruners.SuccessiveHalvingPruner(min_resource="auto" if least is None else least, reduction_factor=factor)


@PRUNERS.register("hyperband")
def hyperband(outer_steps: int, least: Count = 1, factor: Several = 3) -> optuna.pruners.BasePruner:
    """Several brackets of successive halving (optuna.pruners.HyperbandPruner).

    Args:
        least: outer steps that every trial of the first bracket gets.
        factor: one in so many goes on to so many times the steps.
    """
    return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=outer_steps, reduction_factor=factor)


@PRUNERS.register("wilcoxon")
def wilcoxon(p: Annotated[float, Range(0, 1)] = 0.1, startup: Natural = 2) -> optuna.pruners.BasePruner:
    """Worse than the best trial on the same validation episodes by a signed-rank test (optuna.pruners.WilcoxonPruner).

    Args:
        p: level of the test; larger prunes sooner.
        startup: groups of ten episodes that are compared at least.
    """
    return optuna.pruners.WilcoxonPruner(p_threshold=p, n_startup_steps=startup)


@PRUNERS.register("none")
def none() -> optuna.pruners.BasePruner:
    """Every trial runs to its end."""
    return optuna.pruners.NopPruner()
