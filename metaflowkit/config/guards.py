"""What a constructor refuses, read from its source: ``if nesterov and not momentum: raise ValueError("nesterov needs ...")``.

A component states a relation between its settings once, where it must hold, and ``check`` reads it there without importing the
component. Read are the ``if`` statements at the top level of the constructor (or of a function) whose body is one
``raise ValueError(text)``. Nothing is executed: condition and text are walked by :func:`metaflowkit.config.expressions.evaluate`, with the
arguments as names. A statement that holds anything else, such as an argument that only the builder knows or a name assigned before, is left to the constructor.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metaflowkit.config.expressions import FAILURES, FUNCTIONS, evaluate


@dataclass(frozen=True)
class Guard:
    """One ``if`` statement that refuses settings.

    Attributes:
        test: the condition.
        text: what the exception is made with.
        names: the arguments that the condition speaks of, in its order.
    """

    test: ast.expr
    text: ast.expr
    names: tuple[str, ...]

    def refusal(self, settings: Mapping[str, Any]) -> str | None:
        """What the constructor would say of these settings; None where it takes them, or where this cannot be known from its source."""
        try:
            return str(evaluate(self.text, settings)) if evaluate(self.test, settings) else None
        except FAILURES:
            return None


def guards_of(function: ast.FunctionDef) -> tuple[Guard, ...]:
    """The guards of a function, as far as they speak of its arguments alone."""
    given = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
    guards = []
    for statement in function.body:
        match statement:
            case ast.If(test=test, body=[ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"), args=[text]))], orelse=[]):
                names = [node.id for node in ast.walk(test) if isinstance(node, ast.Name) and node.id not in FUNCTIONS]
                if names and given.issuperset(names):
                    guards.append(Guard(test, text, tuple(dict.fromkeys(names))))
        given -= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return tuple(guards)
