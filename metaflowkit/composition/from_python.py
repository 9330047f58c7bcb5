"""A meta-learner from Python objects: any module, losses and tasks, without registration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from torch import Tensor, nn

from metaflowkit.composition.checks import engine_problems, matching
from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.inspection import inspected
from metaflowkit.config.registry import Kind
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Per
from metaflowkit.engines.base import Engine, Loss, MetaLearner
from metaflowkit.engines.contract import component_name
from metaflowkit.errors import ConfigError
from metaflowkit.objectives.base import Objective
from metaflowkit.orders import Order
from metaflowkit.rules.base import Rule
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.rules.per_tensor import PerTensor
from metaflowkit.trees import Call, Tree
from metaflowkit.types import Adapted, Episode


def meta_learner(
    model: nn.Module,
    *,
    inner_loss: Loss,
    rule: Rule,
    steps: int,
    outer_loss: Loss | None = None,
    objective: Objective | None = None,
    order: Order | str = "exact",
    engine: Engine | str = "auto",
    adapt: Iterable[str] | None = None,
    others: Literal["shared", "frozen"] = "shared",
    proximal: float = 0.0,
    remat: bool = False,
    sample: Callable[[Call, Tree, int], Tree] | None = None,
) -> MetaLearner:
    """A meta-learner from a module, losses and a rule.

    Args:
        model: any module; its parameters are the meta-parameters.
        inner_loss: (call, batch) -> scalar of a task's support, which the inner steps descend; ``call`` is the model with the current parameters.
        rule: the inner update rule, such as ``metaflowkit.rules.SGD(lr=0.1)``.
        steps: inner steps K.
        outer_loss: (call, batch) -> scalar of the adapted model on a task's query, which the outer loop minimises.
        objective: instead of an outer loss, (adapted, task) -> (scalar, {name: metric}), such as ``metaflowkit.objectives.BootstrappedKL(delta=5)``.
        order: how the inner loop enters the outer gradient: a registered name, or an order of :mod:`metaflowkit.orders`.
        engine: how the inner loop is run and differentiated: a registered name, or an engine of :mod:`metaflowkit.engines`.
        adapt: patterns of the names of the parameters that the inner steps move; None for all but those of a submodule ``rule``.
        others: ``shared`` where the outer loop moves the remaining ones, or ``frozen``.
        proximal: lambda of the inner loss's further term lambda / 2 |w - theta|^2.
        remat: compute each inner step again in the backward pass, which stores parameters per step instead of activations.
        sample: (call, batch, draw) -> batch, where examples are drawn with the current parameters; see :class:`MetaLearner`.

    Returns:
        The learner: ``outcome(episode)`` gives value, metrics and gradients by name, ``adapt(support, episode)`` adapted parameters.

    Raises:
        ConfigError: an argument breaks its contract, or the engine would differentiate the model wrongly.

    Example:
        >>> import torch, metaflowkit as mfk
        >>> net = torch.nn.Linear(1, 1)
        >>> def loss(call, batch):
        ...     return (call(batch[0]) - batch[1]).square().mean()
        >>> learner = mfk.meta_learner(net, inner_loss=loss, outer_loss=loss, rule=mfk.rules.SGD(lr=0.1), steps=2)
        >>> x = torch.ones(4, 3, 1)  # four tasks of three examples
        >>> outcome = learner.outcome(mfk.Episode(support=(x, 2 * x), query=(x, 2 * x)))
        >>> sorted(outcome.gradients)
        ['bias', 'weight']
    """
    _refuse_arguments(model, steps, others, adapt, proximal)
    _refuse_functions(inner_loss, outer_loss, objective, sample)
    adapts, frozen = _adapting(model, adapt, others)
    rule = _component(r.RULES, "rule", rule)
    outer = OuterLoss(outer_loss) if outer_loss is not None else _component(r.OBJECTIVES, "objective", objective)
    runner: Engine = _component(r.ENGINES, "engine", engine, model=model, rule=rule)
    algorithm: Order = _component(r.ORDERS, "order", order)
    learner = MetaLearner(model, rule, inner_loss, outer, steps, runner, algorithm, adapts=adapts, frozen=frozen, proximal=proximal, remat=remat, sample=sample)
    _refuse(learner)
    return learner


def _refuse_arguments(model: object, steps: object, others: object, adapt: object, proximal: object) -> None:
    """Raise a ConfigError where an argument does not have its type."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    if next(model.parameters(), None) is None:
        raise ConfigError(f"model: must have parameters, got {type(model).__name__} without any, so that there is nothing to learn")
    if isinstance(proximal, bool) or not isinstance(proximal, int | float) or proximal < 0:
        raise ConfigError(f"proximal: must be a number of at least 0, got {proximal!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"steps: must be a whole number of at least 0, got {steps!r}")
    if others not in ("shared", "frozen"):
        raise ConfigError(f"others: must be 'shared' or 'frozen', got {others!r}")
    if isinstance(adapt, str):
        raise ConfigError(f"adapt: must be a list of patterns, got the text {adapt!r}; write [{adapt!r}]")


def _refuse_functions(inner_loss: object, outer_loss: object, objective: object, sample: object) -> None:
    """Raise a ConfigError where a function cannot be called as it will be, or there is not one outer loss or objective."""
    if (outer_loss is None) == (objective is None):
        raise ConfigError("outer_loss: give it or objective, one of the two")
    _require_callable("inner_loss", inner_loss, "call, batch")
    _require_callable("outer_loss", outer_loss, "call, batch")
    _require_callable("sample", sample, "call, batch, draw")


def _adapting(model: nn.Module, adapt: Iterable[str] | None, others: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Names of the parameters that the inner steps move, None for all but the rule's, and of those that neither loop moves."""
    if adapt is None:
        return None, frozenset()
    names = [name for name, _ in model.named_parameters()]
    adapts = matching(names, adapt, lambda i: "adapt")
    return adapts, frozenset(names) - adapts if others == "frozen" else frozenset()


def _refuse(learner: MetaLearner) -> None:
    """Raise a ConfigError where the parts of a learner do not fit together."""
    if learner.order.needs_proximal and learner.proximal <= 0:
        raise ConfigError(f"proximal: must be above 0 for this order, got {learner.proximal:g}")
    if learner.remat and not learner.order.unrolled:
        raise ConfigError("remat: does nothing in this order, which stores no steps; leave it out")
    if learner.order.steps_in is not None and (last := getattr(learner.order, learner.order.steps_in)) > learner.steps:
        raise ConfigError(f"order: {learner.order.steps_in} must be at most steps, {learner.steps}, got {last}; lower it or raise steps")
    if not learner.trained(learner.meta()):
        raise ConfigError("model: has no parameter that requires a gradient, so there is nothing to learn")
    if learner.steps and not learner.fast(learner.meta()):
        raise ConfigError("adapt: the inner steps move nothing, since no parameter that it names requires a gradient")
    if problems := engine_problems(learner):
        raise ConfigError([f"engine: {problem}" for problem in problems])


class OuterLoss:
    """An outer loss as an objective: loss of the student on the task's query, without further metrics.

    Args:
        loss: (call, batch) -> scalar.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = self.__wrapped__ = loss  # messages name the loss

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and no metric."""
        return self.loss(partial(adapted.call, adapted.params), adapted.sample(adapted.params, 0)), {}


def learned_settings(rule: PerTensor, model: nn.Module, steps: int, per_step: bool = False, **per: str) -> LearnedSettings:
    """Settings of a rule as meta-parameters; give the module to the model as its submodule ``rule``.

    Args:
        rule: the rule; what is learned starts from its settings.
        model: the model whose parameters adapt.
        steps: inner steps K.
        per_step: whether each inner step has settings of its own.
        per: for each setting, what has a value of its own: ``all`` share one, or each ``layer``, ``parameter`` or ``element``.

    Raises:
        ConfigError: the rule has no such setting, or its value is a limit of its range.

    Example:
        >>> import torch, metaflowkit as mfk
        >>> model, rule = torch.nn.Linear(1, 1), mfk.rules.SGD(lr=0.1)
        >>> model.rule = mfk.learned_settings(rule, model, steps=2, lr="parameter")
        >>> ", ".join(dict(model.rule.named_parameters()))
        'lr/weight, lr/bias'
    """
    settings = inspected(type(rule).__name__, type(rule), {}).settings
    ranges = {name: get_args(setting.annotation)[1] for name, setting in settings.items() if get_origin(setting.annotation) is Annotated}
    shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    for setting, owner in per.items():
        if setting not in rule.settings or setting not in ranges:
            raise ConfigError(f"{setting}: the rule {type(rule).__name__} has no such setting; {nearest(setting, rule.settings)}")
        if owner not in get_args(Per):
            raise ConfigError(f"{setting}: must be one of {', '.join(get_args(Per))}, got {owner!r}")
    learned = [Learned(setting, rule.settings[setting], ranges[setting], owner, per_step) for setting, owner in per.items()]
    try:
        return LearnedSettings(learned, shapes, steps)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _component(kind: Kind, argument: str, value: Any, **injected: Any) -> Any:
    """A component by its registered name, or the component itself, once it is known to keep the contract of its kind."""
    if inspect.isclass(value):
        raise ConfigError(f"{argument}: must be an object, got the class {value.__name__}; write {value.__name__}(...)")
    if isinstance(value, str) and value not in (entries := kind.entries(())):
        raise ConfigError(f"{argument}: there is no {kind.name} {value!r}; {nearest(value, entries)}, or give an object")
    try:
        return kind.build(Choice(value), **injected) if isinstance(value, str) else kind.checked(value, type(value).__name__)
    except ValueError as error:
        raise ConfigError(f"{argument}: {error}") from None


def _require_callable(name: str, function: Any, arguments: str) -> None:
    """Refuse what cannot be called with these arguments."""
    if function is None:
        return
    if not callable(function):
        raise ConfigError(f"{name}: must be callable, got {type(function).__name__}")
    with suppress(ValueError):  # of a built-in function, whose arguments cannot be read
        try:
            inspect.signature(function).bind(*arguments.split(", "))
        except TypeError:
            raise ConfigError(f"{name}: must take ({arguments}), got {component_name(function)}{inspect.signature(function)}; change it") from None
