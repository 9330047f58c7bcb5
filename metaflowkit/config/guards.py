"""What a constructor refuses, read from its source: ``if nesterov and not momentum: raise ValueError("nesterov needs ...")``.

A component states a relation between its settings once, where it must hold, and ``check`` reads it there without importing the
component. Read are the ``if`` statements at the top level of the constructor (or of a function) whose body is one
``raise ValueError(text)``, and those of a function of the package that the constructor calls there, such as ``check_betas(beta1, beta2)``.
Nothing is executed: condition and text are walked by :func:`metaflowkit.config.expressions.evaluate`, with the arguments and the
constants of the module as names. A statement that holds anything else, such as an argument that only the builder knows or a name
assigned before, is left to the constructor.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaflowkit.config.expressions import FAILURES, FUNCTIONS, evaluate

Definition = tuple[ast.FunctionDef, Mapping[str, Any]]
"""A function and the constants of its module."""


@dataclass(frozen=True)
class Guard:
    """One ``if`` statement that refuses settings.

    Attributes:
        test: the condition.
        text: what the exception is made with.
        names: the arguments that the condition uses, in its order.
        constants: the values of the other names that it uses.
    """

    test: ast.expr
    text: ast.expr
    names: tuple[str, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def refusal(self, settings: Mapping[str, Any]) -> str | None:
        """The constructor's error message for these settings; None where it accepts them, or where the source does not tell."""
        names = {**self.constants, **settings}
        try:
            return str(evaluate(self.text, names)) if evaluate(self.test, names) else None
        except FAILURES:
            return None


def guards_of(
    function: ast.FunctionDef, constants: Mapping[str, Any] | None = None, find: Callable[[str], Definition | None] = lambda name: None
) -> tuple[Guard, ...]:
    """The guards of a function that use nothing but its arguments and constants.

    Args:
        function: a constructor, or a function that makes a component.
        constants: of its module, by name.
        find: the function of a name that the module defines or imports; None where it is not to be read.
    """
    local = _assigned(function)
    return tuple(_guards(function, {name: value for name, value in (constants or {}).items() if name not in local}, find))


def _guards(function: ast.FunctionDef, constants: Mapping[str, Any], find: Callable[[str], Definition | None]) -> Iterator[Guard]:
    arguments = {argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)} - {"self"}
    for statement in function.body:
        match statement:
            case ast.If(test=test, body=[ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"), args=[text]))], orelse=[]):
                yield from _guard(test, text, arguments, constants)
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=passed, keywords=named)) if (definition := find(name)) is not None:
                values = _by_argument(passed, named, definition[0].args)
                for guard in guards_of(*definition):
                    yield from _guard(
                        _inserted(guard.test, values), _inserted(guard.text, values), arguments, {**definition[1], **constants, **guard.constants}
                    )
        arguments -= _assigned(statement)


def _assigned(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _guard(test: ast.expr, text: ast.expr, arguments: set[str], constants: Mapping[str, Any]) -> Iterator[Guard]:
    """The guard of a condition and a text, where the condition uses nothing but arguments and constants; a name that it assigns (``:=``) is written out."""
    assigned = {node.target.id: node.value for node in ast.walk(test) if isinstance(node, ast.NamedExpr)}
    test, text = _inserted(test, assigned), _inserted(text, assigned)
    named = [node for node in ast.walk(test) if isinstance(node, ast.Name)]
    bound = {node.id for node in named if isinstance(node.ctx, ast.Store)}
    names = dict.fromkeys(node.id for node in named if node.id not in FUNCTIONS and node.id not in bound)
    own = tuple(name for name in names if name in arguments)
    others = {name: constants[name] for name in [node.id for node in ast.walk(text) if isinstance(node, ast.Name)] + [*names] if name in constants}
    if own and all(name in arguments or name in others for name in names):
        yield Guard(test, text, own, {name: value for name, value in others.items() if name not in arguments})


def _by_argument(passed: list[ast.expr], named: list[ast.keyword], arguments: ast.arguments) -> dict[str, ast.expr]:
    """The expressions that a call passes, or the defaults, by the function's arguments."""
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    defaults = {
        **dict(zip(reversed(positional), reversed(arguments.defaults))),
        **{a.arg: default for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults) if default},
    }
    return {**defaults, **dict(zip(positional, passed)), **{keyword.arg: keyword.value for keyword in named if keyword.arg}}


class _Inserting(ast.NodeTransformer):
    """Writes expressions in place of names."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        return self.visit(node.value)  # type: ignore[no-any-return]


def _inserted(expression: ast.expr, values: Mapping[str, ast.expr]) -> ast.expr:
    return _Inserting(values).visit(copy.deepcopy(expression))  # type: ignore[no-any-return]
