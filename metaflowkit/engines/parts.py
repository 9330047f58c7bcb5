"""What an engine works on: the pluggable parts of a learner, and what each of them must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from metaflowkit.models.model import Model
from metaflowkit.values import Adaptation, Adapted, Episode, Labelled, Outcome, Outputs, Params, State


class Rule(Protocol):
    """An update rule: pure, differentiable in every argument."""

    def init(self, params: Params) -> State:
        """The state before the first step."""

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """One step."""


Loss = Callable[[Outputs, Tensor], Tensor]
Objective = Callable[[Adapted, Episode], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Parts:
    """The parts of a learner.

    Attributes:
        model: backbone and head; its parameters are the meta-parameters.
        rule: the inner update rule.
        loss: the inner loss on the support set.
        objective: what the outer loop minimises.
        steps: inner steps K.
        first_order: treat inner gradients as constants (FOMAML).
    """

    model: Model
    rule: Rule
    loss: Loss
    objective: Objective
    steps: int
    first_order: bool = False


class Engine(Protocol):
    """One way to run and differentiate the inner loop."""

    description: str

    def outcome(self, parts: Parts, episode: Episode) -> Outcome:
        """Value, metrics and meta-gradients of the outer objective, means over the tasks of the episode."""

    def adapt(self, parts: Parts, support: Labelled, episode: Episode) -> Adaptation:
        """Adapt on ``support`` and score the episode's query set, task by task, without graph."""


def task_of(episode: Episode, t: int) -> Episode:
    """Task ``t`` of a batch."""
    support, query, way = episode
    return Episode(Labelled(support.x[t], support.y[t]), Labelled(query.x[t], query.y[t]), way)
