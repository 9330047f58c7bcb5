"""The meta-learner from Python: own module, own losses, own tasks, and nothing registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from torch import Tensor, nn

from metaflowkit.composition.checks import engine_problems, matching
from metaflowkit.config import registry as r
from metaflowkit.config.inspection import inspected
from metaflowkit.config.registry import Choice, Kind
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Per
from metaflowkit.engines.base import Engine, Loss, MetaLearner
from metaflowkit.errors import ConfigError
from metaflowkit.objectives.base import Objective
from metaflowkit.orders import Order
from metaflowkit.rules.base import Rule, is_native
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.rules.per_tensor import PerTensor
from metaflowkit.types import Adapted, Call, Episode, Tree


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
    """Everything that a meta-gradient takes, from objects.

    Args:
        model: any module; its parameters are the meta-parameters.
        inner_loss: (call, batch) -> scalar, what the inner steps descend on a task's support. ``call(*inputs)`` is the model
            with the parameters at hand.
        rule: the inner update rule, such as ``metaflowkit.rules.SGD(lr=0.1)``.
        steps: inner steps K.
        outer_loss: (call, batch) -> scalar of the adapted model on a task's query, which the outer loop minimises.
        objective: in its place, (adapted, task) -> (scalar, {name: metric}), such as ``metaflowkit.objectives.BootstrappedKL(delta=5)``.
        order: how the inner loop enters the outer gradient: a registered name, or an order of :mod:`metaflowkit.orders`.
        engine: how the inner loop is run and differentiated: a registered name, or an engine of :mod:`metaflowkit.engines`.
        adapt: patterns of the names of the parameters that the inner steps move; None for all but those of a submodule ``rule``.
        others: ``shared`` where the outer loop moves the remaining ones, or ``frozen``.
        proximal: lambda of the inner loss's further term lambda / 2 |w - theta|^2.
        remat: compute each inner step again on the way back, which keeps parameters per step instead of activations.
        sample: (call, batch, draw) -> batch, where examples are drawn with the parameters at hand; see :class:`MetaLearner`.

    Returns:
        The learner: ``outcome(episode)`` gives value, metrics and gradients by name, ``adapt(support, episode)`` adapted parameters.

    Raises:
        ConfigError: an argument breaks its contract, or the engine would differentiate the model wrongly.

    Example:
        >>> import torch, metaflowkit as mfk
        >>> net = torch.nn.Linear(1, 1)
        >>> def loss(call, batch):
        ...     x, y = batch
        ...     return (call(x) - y).square().mean()
        >>> learner = mfk.meta_learner(net, inner_loss=loss, outer_loss=loss, rule=mfk.rules.SGD(lr=0.1), steps=2)
        >>> x = torch.ones(4, 3, 1)  # four tasks of three examples
        >>> outcome = learner.outcome(mfk.Episode(support=(x, 2 * x), query=(x, 2 * x)))
        >>> sorted(outcome.gradients)
        ['bias', 'weight']
    """
    _refuse_arguments(model, steps, others, adapt)
    if (outer_loss is None) == (objective is None):
        raise ConfigError("outer_loss: give it or objective, one of the two")
    _require_callable(inner_loss=inner_loss, outer_loss=outer_loss, objective=objective, sample=sample)
    _require(rule, "rule", ("over",) if is_native(rule) else ("init", "update"))
    names = [name for name, _ in model.named_parameters()]
    adapts = None if adapt is None else matching(names, adapt, lambda i: "adapt")
    learner = MetaLearner(
        model,
        rule,
        inner_loss,
        objective or OuterLoss(outer_loss),  # type: ignore[arg-type]
        steps,
        engine=_named(r.ENGINES, "engine", engine, ("outcome", "adapt"), model=model, rule=rule),
        order=_named(r.ORDERS, "order", order, ("gradient",)),
        adapts=adapts,
        frozen=frozenset(names) - adapts if adapts is not None and others == "frozen" else frozenset(),
        proximal=proximal,
        remat=remat,
        sample=sample,
    )
    _refuse(learner)
    return learner


def _refuse_arguments(model: object, steps: object, others: object, adapt: object) -> None:
    """Raise a ConfigError where an argument is not what its type says."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"steps: must be a whole number of at least 0, got {steps!r}")
    if others not in ("shared", "frozen"):
        raise ConfigError(f"others: must be 'shared' or 'frozen', got {others!r}")
    if isinstance(adapt, str):
        raise ConfigError(f"adapt: must be a list of patterns, got the text {adapt!r}; write [{adapt!r}]")


def _refuse(learner: MetaLearner) -> None:
    """Raise a ConfigError where the parts of a learner do not fit together."""
    if learner.order.needs_proximal and learner.proximal <= 0:
        raise ConfigError(f"proximal: must be above 0 for this order, got {learner.proximal:g}")
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
        self.loss = loss

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and no metric."""
        return self.loss(partial(adapted.call, adapted.params), adapted.sample(adapted.params, 0)), {}


def learned_settings(rule: PerTensor, model: nn.Module, steps: int, per_step: bool = False, **per: str) -> LearnedSettings:
    """Settings of a rule as meta-parameters; give the module to the model as its submodule ``rule``.

    Args:
        rule: the rule; what is learned starts from its settings.
        model: whose parameters have settings of their own.
        steps: inner steps K.
        per_step: whether each inner step has settings of its own.
        per: for each setting, what has a value of its own: ``all`` share one, or each ``layer``, ``parameter`` or ``element``.

    Raises:
        ConfigError: the rule has no such setting, or it stands on the edge of its range.

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


def _named(kind: Kind, argument: str, value: Any, methods: tuple[str, ...], **given: Any) -> Any:
    """A component by its registered name, or the component itself."""
    if not isinstance(value, str):
        _require(value, argument, methods)
        return kind.tagged(value)
    if value not in (entries := kind.entries(())):
        raise ConfigError(f"{argument}: there is no {kind.name} {value!r}; {nearest(value, entries)}, or give an object")
    return kind.build(Choice(value), **given)


def _require_callable(**functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ConfigError(f"{name}: must be callable, got {type(function).__name__}")


def _require(component: Any, argument: str, methods: Iterable[str]) -> None:
    missing = [method for method in methods if not callable(getattr(component, method, None))]
    if missing:
        raise ConfigError(f"{argument}: must have the method {missing[0]}, got {type(component).__name__} without it")
