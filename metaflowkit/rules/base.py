"""The contract of an inner update rule."""

from __future__ import annotations

from typing import Protocol

from metaflowkit.types import Params, State


class Rule(Protocol):
    """An update rule: pure, and differentiable in every argument."""

    def init(self, params: Params) -> State:
        """The state before the first step: nested dicts of tensors and numbers.

        Args:
            params: the parameters that the inner loop moves, by name.
        """

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """One step.

        Args:
            grads: the inner gradient, by name.
            state: what the last step returned.
            params: before the step.

        Returns:
            Parameters and state after it.
        """
