"""The contract of an order: how the inner loop enters the outer gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from metaflowkit.trees import Params, State

Result = tuple[Params, Tensor, dict[str, Tensor]]  # gradients by name, value of the objective, metrics


class Loop(Protocol):
    """The inner loop of one task, as an order uses it.

    ``meta`` and ``params`` are always all parameters by name; results carry no graph. Everything may run inside
    vmap: an order must not branch on the values of tensors.
    """

    @property
    def proximal(self) -> float:
        """lambda of the inner loss's term lambda / 2 |w - theta|^2."""

    def trained(self, params: Params) -> Params:
        """Those that the outer loop moves: an order returns a gradient for each of them."""

    def fast(self, params: Params) -> Params:
        """Those that the inner loop moves."""

    def unrolled(self, meta: Params, differentiated: Callable[[int, int], bool]) -> Result:
        """The objective's gradient through the inner steps.

        Args:
            meta: where the steps start.
            differentiated: (step from 0, number of steps) -> whether the step's inner gradient is differentiated; else it is a constant.
        """

    def adapted(self, meta: Params) -> tuple[Params, State]:
        """Parameters and state of the rule after the inner steps."""

    def objective(self, meta: Params, params: Params, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """Value and metrics of the objective at adapted parameters."""

    def objective_gradient(self, meta: Params, params: Params, state: State) -> Result:
        """The same with the gradient at the adapted parameters themselves, not through the steps, for all that either loop moves."""

    def curvature(self, params: Params, moved: list[str], vector: list[Tensor]) -> list[Tensor]:
        """The product of ``vector`` with the second derivatives of the inner loss, without its proximal term.

        Args:
            params: the point at which it is taken.
            moved: names of the parameters in which the inner loss's gradient is differentiated.
            vector: one tensor for each of the parameters that the inner loop moves.

        Returns:
            One tensor for each name in ``moved``.
        """


class Order(ABC):
    """An order is an algorithm: from the inner loop of a task to the outer gradient.

    Attributes:
        unrolled: the gradient is propagated back through the steps, which ``inner.remat`` can compute again.
        exact: the gradient is the derivative of the objective, so that finite differences must agree.
        converges: the gradient is that of a converged inner loop, and correct only where the inner loop has converged.
        second: second derivatives are taken.
        needs_proximal: ``inner.proximal`` must be positive.
        steps_in: name of a setting that is a number of inner steps, at most all of them; None without one.
    """

    unrolled = False
    exact = False
    converges = False
    second = True
    needs_proximal = False
    steps_in: str | None = None

    @abstractmethod
    def gradient(self, loop: Loop, meta: Params) -> Result:
        """Gradients of the objective for ``loop.trained(meta)``, its value and metrics, all without graph."""


class Unrolled(Order):
    """Backpropagation through the steps, of which some are differentiated."""

    unrolled = True

    @abstractmethod
    def differentiates(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated, or a constant."""

    def gradient(self, loop: Loop, meta: Params) -> Result:
        """The objective's gradient through the steps that are differentiated."""
        return loop.unrolled(meta, self.differentiates)
