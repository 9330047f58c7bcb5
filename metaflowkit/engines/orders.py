"""How the inner loop enters the outer gradient. Each order is a plain value that the engines carry out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metaflowkit.config.registry import ORDERS
from metaflowkit.config.schema import Count, Positive


@ORDERS.register("exact")
@dataclass(frozen=True)
class Exact:
    """Through all inner steps: the second derivatives of every step count.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017.
    """

    unrolled = True
    needs_proximal = False

    def keeps(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; True."""
        return True


@ORDERS.register("first")
@dataclass(frozen=True)
class First:
    """First-order: inner gradients are constants (FOMAML).

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.2.
    """

    unrolled = True
    needs_proximal = False

    def keeps(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated; False."""
        return False


@ORDERS.register("truncate")
class Truncate:
    """Exact through the last steps, first-order through those before them.

    Args:
        last: how many steps are exact; inner.steps of them are the order ``exact``, none the order ``first``.

    Reference:
        A. Shaban et al., Truncated Back-propagation for Bilevel Optimization, AISTATS 2019. Differs from the paper: gradients of
        earlier steps are constants instead of cutting the graph, since the initialisation stands before all of them.
    """

    unrolled = True
    needs_proximal = False

    def __init__(self, last: Count = 1) -> None:
        self.last = last

    def keeps(self, step: int, steps: int) -> bool:
        """Whether the inner gradient of a step (from 0) is differentiated."""
        return step >= steps - self.last


@ORDERS.register("reptile")
@dataclass(frozen=True)
class Reptile:
    """The way back from the adapted weights: the gradient is theta - w_K, whatever the objective says.

    Reference:
        A. Nichol, J. Achiam, J. Schulman, On First-Order Meta-Learning Algorithms, arXiv 1803.02999, algorithm 1.
    """

    unrolled = False
    needs_proximal = False


@ORDERS.register("implicit")
class Implicit:
    """The implicit function theorem at the adapted weights: lambda (H + lambda I)^-1 times the objective's gradient (iMAML).

    H is the Hessian of the inner loss, lambda is ``inner.proximal``. Right where the inner loop has converged; no step is stored.

    Args:
        solver: ``cg`` for conjugate gradients, ``neumann`` for the series rate sum_j (I - rate (H + lambda I))^j.
        iterations: of the solver.
        rate: of the Neumann series; must lie below 2 over the largest eigenvalue of H + lambda I.

    Reference:
        A. Rajeswaran et al., Meta-Learning with Implicit Gradients, NeurIPS 2019, equation 6; J. Lorraine, P. Vicol,
        D. Duvenaud, Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, algorithm 3.
    """

    unrolled = False
    needs_proximal = True

    def __init__(self, solver: Literal["cg", "neumann"] = "cg", iterations: Count = 10, rate: Positive = 0.1) -> None:
        self.solver, self.iterations, self.rate = solver, iterations, rate


Order = Exact | First | Truncate | Reptile | Implicit
