"""How points of a space are chosen: Optuna's samplers, and a grid whose points are all queued at the start."""

from __future__ import annotations

import optuna

from metaflowkit.config.registry import SAMPLERS
from metaflowkit.config.schema import Natural, Several


@SAMPLERS.register("tpe")
def tpe(seed: int, n_startup_trials: Natural = 10, multivariate: bool = False) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (optuna.samplers.TPESampler).

    Args:
        n_startup_trials: trials drawn at random before the estimator is used.
        multivariate: model dependences between parameters, also within conditional groups.
    """
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup_trials, multivariate=multivariate, group=multivariate)


@SAMPLERS.register("gp")
def gp(seed: int, n_startup_trials: Natural = 10) -> optuna.samplers.BaseSampler:
    """Gaussian process with expected improvement (optuna.samplers.GPSampler).

    Args:
        n_startup_trials: trials drawn at random before the process is fitted.
    """
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=n_startup_trials)


@SAMPLERS.register("cmaes")
def cmaes(seed: int, n_startup_trials: Natural = 1) -> optuna.samplers.BaseSampler:
    """Covariance matrix adaptation (optuna.samplers.CmaEsSampler); choices are drawn at random.

    Args:
        n_startup_trials: trials drawn at random before the adaptation starts.
    """
    return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=n_startup_trials)


@SAMPLERS.register("qmc")
def qmc(seed: int) -> optuna.samplers.BaseSampler:
    """A scrambled Sobol sequence (optuna.samplers.QMCSampler); choices are drawn at random."""
    return optuna.samplers.QMCSampler(seed=seed, scramble=True)


@SAMPLERS.register("nsga2")
def nsga2(seed: int, population_size: Several = 20) -> optuna.samplers.BaseSampler:
    """Non-dominated sorting genetic algorithm II (optuna.samplers.NSGAIISampler), for several metrics.

    Args:
        population_size: trials of a generation.
    """
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size)


@SAMPLERS.register("random")
def random(seed: int) -> optuna.samplers.BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed)


@SAMPLERS.register("grid")
class Grid(optuna.samplers.RandomSampler):
    """Every point of a finite space once, the pipeline's own first; all are queued at the start, so that workers share them."""

    exhaustive = True

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
