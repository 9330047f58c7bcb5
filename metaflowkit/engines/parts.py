"""What an engine works on: the pluggable parts of a learner, and what each of them must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

from torch import Tensor, nn

from metaflowkit.models.model import Model
from metaflowkit.orders import Exact, Order
from metaflowkit.rules.learned import LearnedSettings
from metaflowkit.rules.per_tensor import PerTensor
from metaflowkit.types import Adaptation, Adapted, Episode, Labelled, Outcome, Outputs, Params, State

V = TypeVar("V")


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
        model: backbone and head, and what is learned of the rule; its parameters are the meta-parameters.
        rule: the inner update rule.
        loss: the inner loss on the support set.
        objective: what the outer loop minimises.
        steps: inner steps K.
        order: how the inner loop enters the outer gradient.
        adapts: names of the parameters that the inner loop moves; None for all of backbone and head.
        frozen: names of the parameters that neither loop moves; nor does either move those with ``requires_grad=False``.
        proximal: lambda of the inner loss's further term lambda / 2 |w - theta|^2 over the parameters that adapt.
        remat: keep parameters per step instead of activations, and compute each step again on the way back.
    """

    model: Model
    rule: Rule
    loss: Loss
    objective: Objective
    steps: int
    order: Order = field(default_factory=Exact)
    adapts: frozenset[str] | None = None
    frozen: frozenset[str] = frozenset()
    proximal: float = 0.0
    remat: bool = False

    def meta(self) -> Params:
        """All parameters by name, without graph."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def trained(self, params: Mapping[str, V]) -> dict[str, V]:
        """Those of the parameters that the outer loop moves."""
        return {name: params[name] for name, p in self._named if p.requires_grad and name not in self.frozen}

    def fast(self, params: Mapping[str, V]) -> dict[str, V]:
        """Those of the parameters that the inner loop moves."""
        adapts = self.adapts
        return {name: p for name, p in self.trained(params).items() if (name in adapts if adapts is not None else not name.startswith("rule."))}

    @cached_property
    def _named(self) -> list[tuple[str, nn.Parameter]]:
        """The model's parameters when they were first asked for: walking through its modules at every step would take longer than a small step."""
        return list(self.model.named_parameters())

    def rule_at(self, meta: Params, step: int) -> Rule:
        """The rule of an inner step (from 0; the last step's where it goes on), with what is learned of it."""
        learned = self.model.rule
        if not (isinstance(learned, LearnedSettings) and isinstance(self.rule, PerTensor)):
            return self.rule
        return learned.rule_at(self.rule, {name.removeprefix("rule."): p for name, p in meta.items() if name.startswith("rule.")}, step)


class Engine(Protocol):
    """One way to run and differentiate the inner loop.

    Attributes:
        description: what it does, and where it was chosen by itself, why.
    """

    description: str

    @property
    def batches(self) -> bool:
        """Whether tasks go through vmap."""

    @property
    def workers(self) -> int:
        """How many tasks run side by side at most, in threads."""

    def outcome(self, parts: Parts, episode: Episode) -> Outcome:
        """Value, metrics and meta-gradients of the outer objective, means over the tasks of the episode."""

    def adapt(self, parts: Parts, support: Labelled, episode: Episode) -> Adaptation:
        """Adapt on ``support`` and score the episode's query set, task by task, without graph."""


def task_of(episode: Episode, t: int) -> Episode:
    """Task ``t`` of a batch."""
    support, query, way, seed = episode
    return Episode(Labelled(support.x[t], support.y[t]), Labelled(query.x[t], query.y[t]), way, seed)
