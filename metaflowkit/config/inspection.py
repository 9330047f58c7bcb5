"""Entries of imported components, by inspection: how plugins are read.

Their constructors may be inherited, made by ``dataclass``, or functions, and their defaults any value that Python computed.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from metaflowkit.config.guards import Definition, Guard, guards_of
from metaflowkit.config.introspection import REQUIRED, Entry, Setting, argument_docs
from metaflowkit.config.schema import Range

PLAIN = (bool, int, float, str, type(None))


class _Unwritable(Exception):
    """A default that YAML cannot express."""


def inspected(name: str, component: Callable[..., Any], tags: Mapping[str, Any]) -> Entry:
    """The entry of a class or function.

    A setting whose default YAML cannot express, such as a function, is left out: the constructor then uses its own.

    Args:
        name: as a pipeline names it.
        component: what was registered.
        tags: those of its kind, with their defaults.
    """
    settings, helps = {}, _helps(component)
    for key, (parameter, hint) in constructor_parameters(component).items():
        try:
            default = REQUIRED if parameter.default is REQUIRED else _plain(_default(component, parameter))
        except _Unwritable:
            continue
        settings[key] = Setting(key, _supported(hint), default, helps.get(key, ""))
    summary = (inspect.getdoc(component) or "").split("\n\n")[0].replace("\n", " ")
    values = {tag: getattr(component, tag, default) for tag, default in tags.items()}
    return Entry(name, summary, settings, inspect.getsourcefile(inspect.unwrap(component)) or component.__module__, values, _guards(component))


def constructor_parameters(component: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    """The keywords of a constructor with their annotations; ``**kwargs`` stands for those of the next constructor among the bases."""
    parameters: dict[str, tuple[inspect.Parameter, Any]] = {}
    for function in _constructors(component):
        signature = inspect.signature(function)
        hints = _hints(function)
        for key, parameter in list(signature.parameters.items())[inspect.isclass(component) :]:  # without self
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                parameters.setdefault(key, (parameter, hints.get(key, Any)))
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break
    return parameters


def _constructors(component: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The ``__init__`` of each class in the order of its bases, the nearest first; ``__new__`` of a class without one, such as a NamedTuple."""
    if not inspect.isclass(component):
        yield component
        return
    for owner in component.__mro__:
        function = vars(owner).get("__init__") or vars(owner).get("__new__")
        function = getattr(function, "__func__", function)  # Python makes __new__ a staticmethod
        if inspect.isfunction(function):
            yield function


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by name; those that cannot be evaluated are left out."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # any name in any annotation may be missing
        return {key: hint for key, hint in getattr(function, "__annotations__", {}).items() if not isinstance(hint, str)}


def _default(component: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """A parameter's default; a dataclass's ``default_factory`` is called."""
    fields = {field.name: field for field in dataclasses.fields(component)} if dataclasses.is_dataclass(component) else {}
    field = fields.get(parameter.name)
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return parameter.default


def _plain(value: Any) -> Any:
    if type(value) in PLAIN:
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise _Unwritable


def _supported(hint: Any) -> Any:
    """The annotation where a YAML value can be checked against it; Any where it cannot."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return hint if isinstance(args[1], Range) else _supported(args[0])
    if origin in (types.UnionType, typing.Union):
        return hint if Any not in map(_supported, args) else Any
    if origin is typing.Literal:
        return hint
    if origin is list and args and _supported(args[0]) is not Any:
        return hint
    if origin is dict and args and args[0] is str and _supported(args[1]) is not Any:
        return hint
    return hint if hint in (bool, int, float, str, None, type(None)) else Any


def _helps(component: Callable[..., Any]) -> dict[str, str]:
    helps: dict[str, str] = {}
    for owner in reversed(component.__mro__) if inspect.isclass(component) else [component]:
        helps |= argument_docs(inspect.cleandoc(owner.__doc__ or ""))
    return helps


def _guards(component: Callable[..., Any]) -> tuple[Guard, ...]:
    """The guards of the first constructor, where its source can be read."""
    definition = _definition(next(_constructors(component), None))
    return guards_of(*definition, lambda name: _definition(definition[1].get(name))) if definition is not None else ()


def _definition(function: Any) -> Definition | None:
    """The source of a function with the globals that it uses; None where it cannot be read."""
    try:
        (statement,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return (statement, inspect.unwrap(function).__globals__) if inspect.isfunction(function) and isinstance(statement, ast.FunctionDef) else None
