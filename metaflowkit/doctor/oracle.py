"""Finite differences of the objective that know their own uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaflowkit.doctor.branches import Branches, BranchMismatch
from metaflowkit.doctor.findings import Tell
from metaflowkit.engines.base import MetaLearner
from metaflowkit.seeding import generator_for
from metaflowkit.trees import Params
from metaflowkit.types import Adapted, Episode

CONVERGED = 1e-7  # relative spread between levels of Richardson's extrapolation, at which differences count as an oracle
DISTANCES = (1e-4, 1e-5, 1e-6, 1e-3, 1e-7, 1e-8, 1e-9)  # along a direction of length 1, the most likely to converge first

Evaluate = Callable[[MetaLearner, Episode], Tensor]


@dataclass(frozen=True)
class Slope:
    """The objective's slope along a direction.

    Attributes:
        direction: of length 1 over all meta-parameters.
        value: by extrapolated central differences, of the distance with the least uncertainty.
        uncertainty: the spread between the levels of the extrapolation, of which the rounding and the kinks of the objective are a part.
        distance: of the values that were differenced.
        held: whether the branches of kinks were held; without, a kink shows as uncertainty.
    """

    direction: Params
    value: float
    uncertainty: float
    distance: float
    held: bool

    def converged(self, size: float) -> bool:
        """Whether the differences are an oracle for a gradient of this length: their spread is small beside it, and beside what they found."""
        return self.uncertainty <= CONVERGED * min(size, 100 * abs(self.value))


class Oracle:
    """Differences of the objective as a function of the meta-parameters alone.

    The target of a bootstrap carries no gradient: what its further steps gave at the start is used everywhere. So are the branches of ReLUs,
    poolings and comparisons there, without which the inner gradients jump; a network whose operations change with the parameters is differenced as it is.

    Args:
        learner: what adapts.
        episode: tasks.
        evaluate: (learner, episode) -> the objective's value.
    """

    def __init__(self, learner: MetaLearner, episode: Episode, evaluate: Evaluate) -> None:
        self.learner = learner
        self.start = {name: p.clone() for name, p in learner.meta().items()}
        self._value = _with_constant_target(learner, episode, evaluate)
        self._branches: Branches | None = Branches()
        try:
            for _ in range(2):  # recorded, then held once to see that the same operations run again
                self._objective({name: torch.zeros_like(p) for name, p in self.start.items()}, 0.0)
        except (BranchMismatch, RuntimeError):
            self._branches = None

    def slope(self, direction: Params, size: float, distances: tuple[float, ...] = DISTANCES) -> Slope:
        """The slope along a direction, at the first distance that converges, else at the one with the least uncertainty."""
        best = None
        try:
            for distance in distances:
                coarse, fine = (self._difference(direction, h) for h in (distance, distance / 2))
                extrapolated = (4 * fine - coarse) / 3  # Richardson: the error of central differences is even in the distance
                slope = Slope(direction, extrapolated, abs(extrapolated - fine), distance, self._branches is not None)
                best = slope if best is None or not best.uncertainty <= slope.uncertainty else best
                if best.converged(size):
                    break
        finally:
            self.learner.model.load_state_dict(self.start, strict=False)
        assert best is not None
        return best

    def _difference(self, direction: Params, distance: float) -> float:
        return (self._objective(direction, distance) - self._objective(direction, -distance)) / (2 * distance)

    def _objective(self, direction: Params, distance: float) -> float:
        self.learner.model.load_state_dict({name: p + distance * direction[name] for name, p in self.start.items()}, strict=False)
        if self._branches is None:
            return self._value().item()
        with self._branches.used():
            return self._value().item()


def slopes(oracle: Oracle, gradients: Params, count: int, tell: Tell) -> Iterator[Slope]:
    """Slopes along directions that are half the gradient and half drawn at random, every tensor weighing the same."""
    size = length(gradients)
    for i in range(count):
        tell(f"finite differences along direction {i + 1} of {count}")
        generator = generator_for(0, "doctor", i)
        drawn = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in oracle.start.items()}
        chance = unit({name: drawn[name] / drawn[name].norm().clamp_min(1e-300) for name in gradients})
        mixed = unit({name: g + chance[name] for name, g in unit(gradients).items()})
        yield oracle.slope({name: torch.zeros_like(p) for name, p in oracle.start.items()} | mixed, size)


def along(gradients: Params, direction: Params) -> float:
    """The slope that gradients give a direction."""
    return sum((g * direction[name]).sum().item() for name, g in gradients.items())


def length(vector: Params) -> float:
    """The Euclidean norm over all tensors."""
    return torch.stack([x.double().square().sum() for x in vector.values()]).sum().sqrt().item()


def unit(vector: Params) -> Params:
    """The same direction with length 1; zero stays zero."""
    size = max(length(vector), 1e-300)
    return {name: x / size for name, x in vector.items()}


def apart(a: Params, b: Params) -> float:
    """The distance between two gradients over the norm of the second."""
    return length({name: a[name].double() - b[name].double() for name in b}) / max(length(b), 1e-300)


def _with_constant_target(learner: MetaLearner, episode: Episode, evaluate: Evaluate) -> Callable[[], Tensor]:
    """The objective's value, in which further steps give what they gave at the start."""
    steps: list[Any] = []

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any) -> Any:
            params, state = function(*args)
            steps.append(({name: p.clone() for name, p in params.items()}, state))  # what does not adapt is the model's own memory, which slopes overwrite
            return params, state

        return record

    def recording(adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        return learner.objective(dataclasses.replace(adapted, advance=recorded(adapted.advance), descend=recorded(adapted.descend)), task)

    evaluate(dataclasses.replace(learner, objective=recording), episode)

    def value() -> Tensor:
        following = iter(steps)

        def replaying(adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
            return learner.objective(dataclasses.replace(adapted, advance=lambda *_: next(following), descend=lambda *_: next(following)), task)

        return evaluate(dataclasses.replace(learner, objective=replaying), episode)

    return value
