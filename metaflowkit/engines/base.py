"""The contract of an engine, and the meta-learner that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from metaflowkit.criteria import Classification
from metaflowkit.engines.contract import require_outcome
from metaflowkit.orders import Exact, Order
from metaflowkit.rules.base import Rule, is_learnable
from metaflowkit.rules.learned import LearnedSettings
from metaflowkit.trees import Call, Params, Tree
from metaflowkit.types import Adaptation, Adapted, Criterion, Episode, Outcome, task_count

V = TypeVar("V")


Loss = Callable[[Call, Tree], Tensor]
Read = Callable[[Call, Episode], Tree]
ObjectiveFunction = Callable[[Adapted, Episode], tuple[Tensor, dict[str, Tensor]]]  # also a function is an objective


class Engine(Protocol):
    """One way to run and differentiate the inner loop.

    Attributes:
        description: what it does, and the reason where ``auto`` chose it.
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
        """How many tasks run in parallel at most."""

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
        model: any module; its parameters are the meta-parameters. The learned settings of the rule are its submodule ``rule``.
        rule: the inner update rule.
        loss: the inner loss, (call, batch) -> scalar, where ``call(*inputs)`` is the model with the current parameters, and
            ``batch`` the support of one task.
        objective: what the outer loop minimises, (adapted, task) -> (scalar, metrics).
        steps: inner steps K.
        engine: how the inner loop is run and differentiated.
        order: how the inner loop enters the outer gradient.
        adapts: names of the parameters that the inner loop moves; None for all but those of the rule.
        learns: names of the parameters that the outer loop moves; None for all. The others start every task as they are.
        frozen: names of the parameters that neither loop moves; nor does either move those with ``requires_grad=False``.
        proximal: lambda of the inner loss's further term lambda / 2 |w - theta|^2 over the parameters that adapt.
        remat: store parameters per step instead of activations, and compute each step again in the backward pass.
        arguments: (task, *inputs) -> arguments of the model's ``forward``; by default the inputs.
        feature_arguments: the same for a call of which only the features are read, and the scores need not be computed; None for ``arguments``.
        sample: (call, batch, draw) -> batch, examples drawn with the current parameters, from the support in inner step
            ``draw`` (from 0) and from the query for the objective; None where the episode holds the examples.
        criterion: what the model's outputs mean, for objectives that depend on it.
        average: the moving average of the meta-parameters over the outer steps, by name, for objectives that read it; a name that it lacks
            stands for the meta-parameter itself, and None for all of them, as before the first outer step.
    """

    model: nn.Module
    rule: Rule
    loss: Loss
    objective: ObjectiveFunction
    steps: int
    engine: Engine
    order: Order = field(default_factory=Exact)
    adapts: frozenset[str] | None = None
    learns: frozenset[str] | None = None
    frozen: frozenset[str] = frozenset()
    proximal: float = 0.0
    remat: bool = False
    arguments: Callable[..., tuple[Any, ...]] = as_given
    feature_arguments: Callable[..., tuple[Any, ...]] | None = None
    sample: Callable[[Call, Tree, int], Tree] | None = None
    criterion: Criterion = field(default_factory=Classification)
    average: Params | None = None

    def outcome(self, episode: Episode) -> Outcome:
        """The outer objective's value, metrics and gradients by name, means over a batch of tasks.

        Raises:
            BrokenContract: a component returned something else than the contract of its kind says.
            ValueError: the episode is no batch of tasks.
        """
        task_count(episode)
        return require_outcome(self.engine.outcome(self, episode), self.trained(dict(self._named)), self.engine)

    def adapt(self, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """Adapt on ``support`` and read from each adapted model; the arguments are those of :meth:`Engine.adapt`.

        Raises:
            BrokenContract, ValueError: see :meth:`outcome`.
        """
        task_count(episode)
        task_count(episode._replace(support=support))
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
        """The model's parameters, listed once: walking through its modules at every step would take longer than a small step."""
        return list(self.model.named_parameters())

    def rule_at(self, meta: Params, step: int) -> Rule:
        """The rule of an inner step (from 0; further steps use the last one's), with its learned settings."""
        settings = getattr(self.model, "rule", None)
        if not (isinstance(settings, LearnedSettings) and is_learnable(self.rule)):
            return self.rule
        rule: Rule = settings.rule_at(self.rule, {name.removeprefix("rule."): p for name, p in meta.items() if name.startswith("rule.")}, step)
        return rule
