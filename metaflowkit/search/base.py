"""The contracts of samplers and pruners."""

from __future__ import annotations

from typing import Protocol

import optuna


class Sampler(Protocol):
    """A class of Optuna's samplers, or a function that makes one; its further arguments are settings.

    Attributes:
        exhaustive: whether every point of the space is a trial: all are queued at the start, in place of ``trials`` many that the
            sampler suggests. The space must be finite.
    """

    exhaustive: bool = False

    def __call__(self, seed: int) -> optuna.samplers.BaseSampler:
        """The sampler of one worker.

        Args:
            seed: of its draws, another one in each worker.
        """


class Pruner(Protocol):
    """A class of Optuna's pruners, or a function that makes one; its further arguments are settings.

    Attributes:
        prunes: whether it can end a trial early; only then are validations reported to it, and the search must have one metric.
        reads_episodes: whether it compares trials episode by episode: it is given the means of groups of validation episodes, at
            steps that number the groups, instead of one mean over all episodes at the outer step.
    """

    prunes: bool = True
    reads_episodes: bool = False

    def __call__(self, outer_steps: int) -> optuna.pruners.BasePruner:
        """The pruner.

        Args:
            outer_steps: of a trial that runs to its end.
        """
