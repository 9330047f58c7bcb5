"""Whether an object has what the contract of its kind asks for."""

from __future__ import annotations

import inspect
from typing import Any


def require_member(title: str, component: Any, member: str, remedy: str) -> None:
    """Refuse a component without a method or attribute.

    Args:
        title: kind and name of the component.
        component: the object.
        member: a method with its arguments, such as ``episode(step)``, or the name of an attribute.
        remedy: what to do where it is missing.

    Raises:
        ValueError: it is missing, or the method takes other arguments.
    """
    name, parenthesis, arguments = member.rstrip(")").partition("(")
    if not parenthesis:
        if not hasattr(component, name):
            raise lacks(title, f"the attribute {name}", component, remedy)
        return
    function = getattr(component, name, None)
    if not callable(function) or getattr(function, "__name__", "") == "_forward_unimplemented":  # what torch.nn.Module has instead of a forward
        raise lacks(title, member, component, remedy)
    signature = inspect.signature(component if name == "__call__" else function)  # that of a function's own __call__ says nothing
    try:
        signature.bind(*filter(None, arguments.split(", ")))
    except TypeError:
        raise ValueError(f"{title} must define {member}, and that of {_class_name(component)} takes {signature}; change it") from None


def lacks(title: str, members: str, component: Any, remedy: str) -> ValueError:
    """The error of a component, or of its class, that is without these members."""
    return ValueError(f"{title} must define {members}, and {_class_name(component)} does not; {remedy}")


def _class_name(component: Any) -> str:
    """Module and name of a class or function, or of the class of a component."""
    owner = component if inspect.isfunction(component) or inspect.isclass(component) else type(component)
    return f"{owner.__module__}.{owner.__qualname__}"
