"""The contract of an inner update rule."""

from __future__ import annotations

from typing import Protocol

from metaflowkit.trees import Params, State


class Rule(Protocol):
    """An update rule: pure, and differentiable in every argument.

    Attributes:
        learnable: whether its settings can be meta-learned: it has them as ``settings``, and ``replace(**settings)`` gives the same rule
            with others.
        native: whether it is an optimiser of ``higher``'s own, which takes its steps itself in an engine that ``takes_native``; it
            has ``over(params)`` instead of a pure update.
    """

    learnable: bool = False
    native: bool = False

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


def is_learnable(rule: object) -> bool:
    """The rule's tag ``learnable``, or its default for an object without the tag."""
    return bool(getattr(rule, "learnable", Rule.learnable))


def is_native(rule: object) -> bool:
    """The rule's tag ``native``, or its default for an object without the tag."""
    return bool(getattr(rule, "native", Rule.native))
