"""The target that bootstrapped objectives pull the student toward: the student, or a slowly moving copy of it, after further inner steps."""

from __future__ import annotations

from dataclasses import dataclass

from metaflowkit.trees import Params, detached
from metaflowkit.types import Adapted, Episode, scores_of


def require_steps(delta: int, last_delta: int | None, grounded: bool) -> None:
    """Raise a ValueError where a grounded target would take no step."""
    if grounded and (delta == 0 or last_delta == 0):
        raise ValueError("a grounded target takes its last step on the query, so delta must be at least 1, got 0; raise delta or set grounded: false")


@dataclass(frozen=True)
class Target:
    """The student after delta further steps, without graph.

    Attributes:
        delta: further steps.
        grounded: whether the last of them is on the loss of the tasks, on the query.
        last_delta: delta at the last outer step, to which it changes linearly; None where it stays.
        outer_steps: of the run; needed with ``last_delta`` alone.
        ema: decay of the moving average of the initialisation; the target then takes the K inner steps and delta further ones from the
            average. None for the target that starts from the student.

    Raises:
        ValueError: delta changes over an unknown number of outer steps.
    """

    delta: int
    grounded: bool
    last_delta: int | None = None
    outer_steps: int = 0
    ema: float | None = None

    def __post_init__(self) -> None:
        if self.last_delta is not None and self.outer_steps < 1:
            raise ValueError("last_delta changes delta over the outer steps of a run, and their number is not known here; give outer_steps")

    @property
    def most(self) -> int:
        """The most steps that it takes."""
        return max(self.delta, self.last_delta or 0)

    def steps_at(self, outer_step: int) -> int:
        """Delta at an outer step, from 1 to ``outer_steps``: linear between the two, rounded to the nearest whole number."""
        if self.last_delta is None:
            return self.delta
        share = min(max(outer_step - 1, 0) / max(self.outer_steps - 1, 1), 1.0)
        return round(self.delta + share * (self.last_delta - self.delta))

    def is_student(self, outer_step: int) -> bool:
        """Whether it takes no step from the student."""
        return self.ema is None and self.steps_at(outer_step) == 0

    def params(self, adapted: Adapted, task: Episode) -> Params:
        """The target's parameters by name.

        Args:
            adapted: the student.
            task: its task.
        """
        steps = self.steps_at(task.step)
        start = ({name: p.detach() for name, p in adapted.params.items()}, detached(adapted.state)) if self.ema is None else adapted.restart()
        params, state = adapted.advance(*start, steps - self.grounded)
        if self.grounded:
            x, y = adapted.sample(params, 1)
            params, state = adapted.descend(params, state, lambda p: adapted.criterion.loss(scores_of(adapted.call(p, x)), y))
        return params
