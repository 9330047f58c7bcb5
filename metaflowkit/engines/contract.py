"""What the components of a meta-learner return, checked where the engines call them: a component of one's own that breaks its contract is named."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metaflowkit.errors import BrokenContract
from metaflowkit.trees import Params, State
from metaflowkit.types import Outcome


def require_scalar(value: Any, role: str, component: Any, what: str = "return") -> Tensor:
    """The value, once it is known to be a floating-point tensor of no dimension.

    Args:
        value: what the component returned.
        role: of the component, such as ``objective``.
        component: for the message.
        what: the component must do with such a value.

    Raises:
        BrokenContract: it is something else.
    """
    if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
        text = f"must {what} a floating-point tensor of no dimension, got {kind_of(value)}; reduce it with such as .mean()"
        raise BrokenContract(role, component_name(component), text)
    return value


def require_graph(value: Tensor, role: str, component: Any, moved: str) -> None:
    """Refuse a value without graph, whose gradient would silently be zero.

    Args:
        value: a scalar that is to be differentiated.
        role: of the component that computed it.
        component: for the message.
        moved: by which loop the parameters are moved that it must depend on.

    Raises:
        BrokenContract: it depends on none of them.
    """
    if not value.requires_grad:
        text = f"depends on no parameter that the {moved} moves, so that nothing would be learned; compute it from the model's outputs, without detach()"
        raise BrokenContract(role, component_name(component), text)


def require_objective(result: Any, component: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The value and the metrics of an objective.

    Raises:
        BrokenContract: it returned something else.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        text = f"must return (value, {{name: metric}}), got {kind_of(result)}; give an empty dict for no metrics"
        raise BrokenContract("objective", component_name(component), text)
    value, metrics = result
    metrics = {name: require_scalar(metric, "objective", component, f"give as metric {name!r}") for name, metric in metrics.items()}
    return require_scalar(value, "objective", component), metrics


def require_state(state: Any, rule: Any) -> State:
    """The state of a rule.

    Raises:
        BrokenContract: it is no mapping.
    """
    if not isinstance(state, dict):
        text = f"must have a state of nested dicts of tensors and numbers, got {kind_of(state)}; return {{}} from init for none"
        raise BrokenContract("rule", component_name(rule), text)
    return state


def require_update(result: Any, params: Params, rule: Any) -> tuple[Params, State]:
    """What ``update`` returned: parameters of the same names and shapes, and a state.

    Args:
        result: what it returned.
        params: before the step.
        rule: for the message.

    Raises:
        BrokenContract: it returned something else.
    """
    if not (isinstance(result, tuple) and len(result) == 2):
        raise BrokenContract("rule", component_name(rule), f"must return (params, state) from update, got {kind_of(result)}")
    updated, state = result
    _require_named(updated, params, "rule", rule, "from update")
    return updated, require_state(state, rule)


def require_gradient(result: Any, trained: Params, order: Any) -> tuple[Params, Tensor, dict[str, Tensor]]:
    """What an order returned: a gradient for each parameter that the outer loop moves, value and metrics.

    Args:
        result: what it returned.
        trained: parameters that the outer loop moves.
        order: for the message.

    Raises:
        BrokenContract: it returned something else.
    """
    if not (isinstance(result, tuple) and len(result) == 3 and isinstance(result[2], dict)):
        raise BrokenContract("order", component_name(order), f"must return (gradients, value, metrics) from gradient, got {kind_of(result)}")
    gradients, value, metrics = result
    _require_named(gradients, trained, "order", order, "as gradients")
    return gradients, require_scalar(value, "order", order, "return as value"), metrics


def require_outcome(outcome: Any, trained: Params, engine: Any) -> Outcome:
    """What an engine returned.

    Args:
        outcome: what it returned.
        trained: parameters that the outer loop moves.
        engine: for the message.

    Raises:
        BrokenContract: it returned something else.
    """
    if not isinstance(outcome, Outcome):
        raise BrokenContract("engine", component_name(engine), f"must return an Outcome from outcome, got {kind_of(outcome)}")
    _require_named(outcome.gradients, trained, "engine", engine, "as gradients")
    return outcome


def _require_named(tensors: Any, like: Params, role: str, component: Any, where: str) -> None:
    """Refuse what is not a mapping of tensors with the names and shapes of others."""
    if not isinstance(tensors, Mapping):
        raise BrokenContract(role, component_name(component), f"must return a dict of tensors by name {where}, got {kind_of(tensors)}")
    for name, p in like.items():
        if not (isinstance(x := tensors.get(name), Tensor) and x.shape == p.shape):
            expected, got = list(p.shape), kind_of(x) if name in tensors else "none"
            raise BrokenContract(role, component_name(component), f"must return {where} a tensor {expected} for {name}, got {got}")
    if further := sorted(map(str, tensors.keys() - like.keys())):
        raise BrokenContract(role, component_name(component), f"must return nothing {where} but {', '.join(like)}, got {further[0]} as well")


def component_name(component: Any) -> str:
    """How a message names a component: a function by its name, an object by its class, and a wrapper by what it wraps (``__wrapped__``)."""
    component = inspect.unwrap(component)
    owner = component if inspect.isroutine(component) or inspect.isclass(component) else type(component)
    return str(owner.__qualname__)


def kind_of(value: Any) -> str:
    """A value as a message describes it: tensors by their type and shape."""
    if isinstance(value, Tensor):
        number = str(value.dtype).removeprefix("torch.")
        return f"a tensor [{', '.join(map(str, value.shape))}]" + ("" if value.is_floating_point() else f" of {number}")
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__
