"""Values of Python expressions that are read and never run: a syntax tree of constants, names, containers, comparisons, arithmetic and comprehensions is walked."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
LARGEST = 4096  # bits of a power, so that a source text cannot ask for more memory than there is


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * max(b, 0) > LARGEST:
        raise OverflowError(f"{a} ** {b} is too large")
    return a**b


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: _power, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (len, set, min, max, sum, abs, any, all, sorted)}
METHODS: dict[type, tuple[str, ...]] = {str: ("lower", "upper", "strip", "join"), dict: ("keys", "values", "items")}


class Unreadable(Exception):
    """An expression holds something that is not supported."""


FAILURES = (Unreadable, TypeError, ValueError, ArithmeticError, LookupError)  # what evaluate may raise: all but the first are the expression's own


def evaluate(node: ast.expr, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> Any:
    """The value of an expression.

    Args:
        node: the expression.
        names: what its names stand for; ``a.b`` is one name.
        functions: what it may call.

    Raises:
        Unreadable: it holds something that is not supported, or another name.
        TypeError, ValueError, ArithmeticError, LookupError: an operation in it refuses its operands.
    """

    def value(part: ast.expr) -> Any:
        return evaluate(part, names, functions)

    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if f"{name}.{attribute}" in names:
            return names[f"{name}.{attribute}"]
        case ast.List(elts=items):
            return [value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(value(item) for item in items)
        case ast.Dict(keys=keys, values=items) if all(key is not None for key in keys):
            return {value(key): value(item) for key, item in zip(keys, items) if key is not None}
        case ast.Subscript(value=whole, slice=part):
            return value(whole)[value(part)]
        case ast.Set(elts=items):
            return {value(item) for item in items}
        case ast.BoolOp(op=operation, values=[first, *rest]):
            others = ast.BoolOp(operation, rest) if len(rest) > 1 else rest[0]
            return (value(first) and value(others)) if isinstance(operation, ast.And) else (value(first) or value(others))
        case ast.UnaryOp(op=ast.Not() | ast.USub() as operation, operand=operand):
            return not value(operand) if isinstance(operation, ast.Not) else -value(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return value(body) if value(test) else value(orelse)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _ARITHMETIC:
            return _ARITHMETIC[type(operation)](value(left), value(right))
        case ast.Compare(left=left, ops=operations, comparators=others):
            sides = [left, *others]
            return all(_COMPARISONS[type(op)](value(a), value(b)) for a, op, b in zip(sides, operations, others))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=named) if name in functions and all(keyword.arg for keyword in named):
            return functions[name](*map(value, arguments), **{keyword.arg: value(keyword.value) for keyword in named if keyword.arg})
        case ast.Call(func=ast.Attribute(value=ast.expr() as owner, attr=method), args=arguments, keywords=[]):
            if method in METHODS.get(type(receiver := value(owner)), ()):
                return getattr(receiver, method)(*map(value, arguments))
        case ast.ListComp(elt=item, generators=[loop]) | ast.SetComp(elt=item, generators=[loop]) | ast.GeneratorExp(elt=item, generators=[loop]):
            items = [evaluate(item, scope, functions) for scope in _scopes(loop, names, functions)]
            return set(items) if isinstance(node, ast.SetComp) else items
        case ast.JoinedStr(values=parts):
            return "".join(value(part) for part in parts)
        case ast.FormattedValue(value=inner, conversion=conversion, format_spec=spec):
            result = value(inner)
            return format(repr(result) if conversion == ord("r") else result, value(spec) if spec is not None else "")
    raise Unreadable(ast.unparse(node))


def _scopes(loop: ast.comprehension, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Iterator[dict[str, Any]]:
    """The names at each pass of a comprehension's loop that its conditions let through."""
    targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    for item in evaluate(loop.iter, names, functions):
        scope = {**names}
        for target, part in zip(targets, item if isinstance(loop.target, ast.Tuple) else [item], strict=True):
            if not isinstance(target, ast.Name):
                raise Unreadable(ast.unparse(loop.target))
            scope[target.id] = part
        if all(evaluate(condition, scope, functions) for condition in loop.ifs):
            yield scope
