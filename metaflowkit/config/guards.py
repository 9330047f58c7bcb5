"""What a constructor refuses, read from its source: ``if nesterov and not momentum: raise ValueError("nesterov needs ...")``.

A component states a relation between its settings once, where it must hold, and ``check`` reads it there without importing the
component. Read are the ``if`` statements at the top level of the constructor (or of a function) whose body is one
``raise ValueError(text)``. Nothing is executed: condition and text are walked as syntax trees that may hold arguments by name, constants,
lists and sets, comparisons, ``and``, ``or``, ``not``, arithmetic, conditional expressions, f-strings and the functions below. A statement
that holds anything else, such as an argument that only the builder knows or a name assigned before, is left to the constructor.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (len, set, min, max, sum, abs, sorted)}


class _Unreadable(Exception):
    """An expression holds something that is not walked."""


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
            return str(_value(self.text, settings)) if _value(self.test, settings) else None
        except (_Unreadable, TypeError, ValueError, ArithmeticError):  # the last three are the constructor's to raise
            return None


def guards_of(function: ast.FunctionDef) -> tuple[Guard, ...]:
    """The guards of a function, as far as they speak of its arguments alone."""
    given = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
    guards = []
    for statement in function.body:
        match statement:
            case ast.If(test=test, body=[ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"), args=[text]))], orelse=[]):
                names = [node.id for node in ast.walk(test) if isinstance(node, ast.Name) and node.id not in _FUNCTIONS]
                if names and given.issuperset(names):
                    guards.append(Guard(test, text, tuple(dict.fromkeys(names))))
        given -= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return tuple(guards)


def _value(node: ast.expr, settings: Mapping[str, Any]) -> Any:
    def value(part: ast.expr) -> Any:
        return _value(part, settings)

    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name) if name in settings:
            return settings[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [value(item) for item in items]
        case ast.Set(elts=items):
            return {value(item) for item in items}
        case ast.BoolOp(op=ast.And(), values=[first, *rest]):
            return value(first) and (value(ast.BoolOp(ast.And(), rest)) if len(rest) > 1 else value(rest[0]))
        case ast.BoolOp(op=ast.Or(), values=[first, *rest]):
            return value(first) or (value(ast.BoolOp(ast.Or(), rest)) if len(rest) > 1 else value(rest[0]))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not value(operand)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return value(body) if value(test) else value(orelse)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _ARITHMETIC:
            return _ARITHMETIC[type(operation)](value(left), value(right))
        case ast.Compare(left=left, ops=operations, comparators=others):
            sides = [left, *others]
            return all(_COMPARISONS[type(op)](value(a), value(b)) for a, op, b in zip(sides, operations, others))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(value, arguments))
        case ast.JoinedStr(values=parts):
            return "".join(value(part) for part in parts)
        case ast.FormattedValue(value=inner, conversion=conversion, format_spec=spec):
            shown = value(inner)
            return format(repr(shown) if conversion == ord("r") else shown, value(spec) if spec is not None else "")
    raise _Unreadable
