"""The contract of an engine, and the meta-learner that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from metaflowkit.criteria import Classification
from metaflowkit.objectives.base import Objective
from metaflowkit.orders import Exact, Order
from metaflowkit.rules.base import Rule, is_learnable
from metaflowkit.rules.learned import LearnedSettings
from metaflowkit.types import Adaptation, Call, Criterion, Episode, Outcome, Params, Tree

V = TypeVar("V")


Loss = Callable[[Call, Tree], Tensor]
Read = Callable[[Call, Episode], Tree]


class Engine(Protocol):
    """One way to run and differentiate the inner loop.

    Attributes:
        description: what it does, and where it was chosen by itself, why.
        takes_native: whether it runs ``higher``'s own optimisers as inner rules.
        calls_hooks: whether it calls the forward hooks of modules.
    """

    description: str
    takes_native: bool = False
    calls_hooks: bool = True

    @property
    def batches(self) -> bool:
        """Whether tasks go through vmap."""

    @property
    def workers(self) -> int:
        """How many tasks run side by side at most."""

    def outcome(self, learner: MetaLearner, episode: Episode) -> Outcome:
        """Value, metrics and meta-gradients of the outer objective, means over the tasks of the episode."""

    def adapt(self, learner: MetaLearner, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """Adapt on ``support`` and read from each adapted model, task by task, without graph.

        Args:
            learner: what adapts.
            support: what is learned from, [T, ...]; a model that reads its support set reads the episode's.
            episode: the tasks.
            read: (call, task) -> nested tensors, such as the scores of the task's query set.
        """


def as_given(task: Episode, *inputs: Any) -> tuple[Any, ...]:
    """A model's arguments where it is called with the inputs alone."""
    return inputs


@dataclass(frozen=True)
class MetaLearner:
    """A model, how it adapts to a task, and what the outer loop minimises.

    Attributes:
        model: any module; its parameters are the meta-parameters. What is learned of the rule is its submodule ``rule``.
        rule: the inner update rule.
        loss: the inner loss, (call, batch) -> scalar, where ``call(*inputs)`` is the model with the parameters at hand, and
            ``batch`` the support of one task.
        objective: what the outer loop minimises, (adapted, task) -> (scalar, metrics).
        steps: inner steps K.
        engine: how the inner loop is run and differentiated.
        order: how the inner loop enters the outer gradient.
        adapts: names of the parameters that the inner loop moves; None for all but those of the rule.
        learns: names of the parameters that the outer loop moves; None for all. The others start every task as they are.
        frozen: names of the parameters that neither loop moves; nor does either move those with ``requires_grad=False``.
        proximal: lambda of the inner loss's further term lambda / 2 |w - theta|^2 over the parameters that adapt.
        remat: keep parameters per step instead of activations, and compute each step again on the way back.
        arguments: (task, *inputs) -> arguments of the model's ``forward``; by default the inputs.
        sample: (call, batch, draw) -> batch, examples drawn with the parameters at hand, from the support in inner step
            ``draw`` (from 0) and from the query for the objective; None where the episode holds the examples.
        criterion: what the model's outputs mean, for objectives that ask.
    """

    model: nn.Module
    rule: Rule
    loss: Loss
    objective: Objective
    steps: int
    engine: Engine
    order: Order = field(default_factory=Exact)
    adapts: frozenset[str] | None = None
    learns: frozenset[str] | None = None
    frozen: frozenset[str] = frozenset()
    proximal: float = 0.0
    remat: bool = False
    arguments: Callable[..., tuple[Any, ...]] = as_given
    sample: Callable[[Call, Tree, int], Tree] | None = None
    criterion: Criterion = field(default_factory=Classification)

    def outcome(self, episode: Episode) -> Outcome:
        """The outer objective's value, metrics and gradients by name, means over a batch of tasks."""
        return self.engine.outcome(self, episode)

    def adapt(self, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """See :meth:`Engine.adapt`."""
        return self.engine.adapt(self, support, episode, read)

    def meta(self) -> Params:
        """All parameters by name, without graph."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def trained(self, params: Mapping[str, V]) -> dict[str, V]:
        """Those of the parameters that the outer loop moves."""
        learns = self.learns
        return {name: p for name, p in self._movable(params).items() if learns is None or name in learns}

    def fast(self, params: Mapping[str, V]) -> dict[str, V]:
        """Those of the parameters that the inner loop moves."""
        adapts = self.adapts
        return {name: p for name, p in self._movable(params).items() if (name in adapts if adapts is not None else not name.startswith("rule."))}

    def _movable(self, params: Mapping[str, V]) -> dict[str, V]:
        return {name: params[name] for name, p in self._named if p.requires_grad and name not in self.frozen}

    @cached_property
    def _named(self) -> list[tuple[str, nn.Parameter]]:
        """The model's parameters when they were first asked for: walking through its modules at every step would take longer than a small step."""
        return list(self.model.named_parameters())

    def rule_at(self, meta: Params, step: int) -> Rule:
        """The rule of an inner step (from 0; the last step's where it goes on), with what is learned of it."""
        learned = getattr(self.model, "rule", None)
        if not (isinstance(learned, LearnedSettings) and is_learnable(self.rule)):
            return self.rule
        rule: Rule = learned.rule_at(self.rule, {name.removeprefix("rule."): p for name, p in meta.items() if name.startswith("rule.")}, step)
        return rule
