"""Types as schemas: check a YAML node against a Python annotation and coerce it.

The annotations understood are ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``list[X]``, ``dict[str, X]``,
unions with ``|``, ``Any``, the bounded aliases below and ``Component`` (or a list of them), another component of the same kind. A component's constructor uses them and thereby states its schema.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from metaflowkit.config.yaml import Node
from metaflowkit.errors import key_text, quoted

WHOLE = 2**63  # whole numbers from -WHOLE to WHOLE - 1 fit in 64 bits
SIZE = 1e12  # of any number: a product of a few such still fits in single precision


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; ``above`` leaves ``low`` itself out, ``below`` leaves ``high`` out.

    ``most`` is a generous limit beyond which a setting has no meaning; it is named where it is crossed, and nowhere else.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    most: float = math.inf

    def holds(self, number: float) -> bool:
        """Whether the number lies in the range (NaN never does)."""
        return (self.low < number if self.above else self.low <= number) and (number < self.high if self.below else number <= self.high) and number <= self.most

    def remedy(self) -> str:
        """What to do about a number outside the range."""
        if self.below:
            return f"keep it {self}"
        if self.above:
            return f"raise it above {self.low:g}"
        return f"raise it to {self.low:g}" if self.high == math.inf else f"keep it between {self.low:g} and {self.high:g}"

    def start_problem(self, name: str, start: float) -> str:
        """Why the number of this name cannot be learned within the range from a start; empty where it can: a limit of the range is never left."""
        if self.high == 1:
            text = "" if 0 < start < 1 else f"{name} is learned between 0 and 1, got {start:g} to start from; choose a start inside"
        else:
            text = "" if start > 0 else f"{name} is learned above 0, got {start:g} to start from; choose a start above 0"
        return text and f"{text}, or do not learn it"

    def __str__(self) -> str:
        if self.below:
            return f"{'above' if self.above else 'of at least'} {self.low:g} and below {self.high:g}"
        if self.high != math.inf:
            return f"from {self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"of at least {self.low:g}"


@dataclass(frozen=True)
class SameKind:
    """Marks a setting that is itself a component, of the kind of the component that has the setting."""


Component = Annotated[Any, SameKind()]
Count = Annotated[int, Range(1)]
Several = Annotated[int, Range(2)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
Side = Annotated[int, Range(1, most=4096)]
Width = Annotated[int, Range(1, most=65_536)]
Examples = Annotated[int, Range(1, most=100_000)]
Ways = Annotated[int, Range(2, most=100_000)]
Level = Annotated[int, Range(1, 4)]
Similarity = Literal["cosine", "euclidean", "semi_normalised"]
InnerSteps = Annotated[int, Range(0, most=100_000)]


class Mismatch(Exception):
    """A node does not fit an annotation; carries the node, its path and the message.

    ``close`` says that the type fitted and only a bound did not, so that in a union this is the failure to report.
    """

    def __init__(self, node: Node, path: str, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.node, self.path, self.message, self.close = node, path, message, close


def nearest(name: str, names: Iterable[str]) -> str:
    """The text that offers the closest legal name, or lists the legal ones.

    Example:
        >>> nearest("protoype", ["prototype", "linear"])
        "did you mean 'prototype'?"
    """
    names = list(names)
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(names) > 20:
        return f"use one of {len(names)}, such as {', '.join(names[:5])}"
    return "use one of " + ", ".join(names) if names else "none exists"


def describe(annotation: Any) -> str:
    """The annotation in the words of an error message, such as ``a whole number of at least 1``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "any value"
    if annotation == Component:
        return "a component of the same kind"
    if annotation is None or annotation is type(None):
        return "null"
    if origin is Annotated:
        return f"{describe(args[0])} {args[1]}"
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (types.UnionType, Union):
        return " or ".join(describe(arg) for arg in args)
    if origin is list:
        return f"a list ({describe(args[0])} each)"
    if origin is dict:
        return f"a mapping ({describe(args[1])} each)"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[annotation]


def coerce(node: Node, annotation: Any, path: str) -> Any:
    """The node's value as the annotation asks for it.

    Args:
        node: what the file says.
        annotation: one of the types listed in the module's docstring.
        path: dotted path of the node, for messages.

    Raises:
        Mismatch: naming the innermost node that does not fit.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    value = node.value
    if annotation is Any:
        return node.plain()
    if origin is Annotated:
        try:
            number = coerce(node, args[0], path)
        except Mismatch as mismatch:
            raise (mismatch if mismatch.close else _unfit(node, annotation, path)) from None
        if not args[1].holds(number):
            if number > args[1].most:
                raise Mismatch(node, path, f"must be at most {args[1].most}, got {quoted(number)}; lower it", close=True)
            raise Mismatch(node, path, f"must be {describe(annotation)}, got {quoted(number)}; {args[1].remedy()}", close=True)
        return number
    if origin in (types.UnionType, Union):
        return _coerce_union(node, annotation, path)
    if origin is Literal:
        if value in args and not isinstance(value, (dict, list)):
            return value
        raise Mismatch(node, path, f"must be {describe(annotation)}, got {node.shown()}; {nearest(str(value), map(str, args))}")
    if origin is list and isinstance(value, list):
        return [coerce(item, args[0], f"{path}.{i}") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: coerce(item, args[1], f"{path}.{key_text(key)}") for key, item in value.items()}
    if annotation in (None, type(None)) and value is None:
        return None
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= SIZE:
            raise Mismatch(node, path, f"must be a number of at most {SIZE:g} in size, got {node.shown()}; write a smaller one", close=True)
        return float(value)
    if annotation is int and type(value) is int and not -WHOLE <= value < WHOLE:
        raise Mismatch(node, path, f"must be a whole number of at most 64 bits, got {node.shown()}; write a smaller one", close=True)
    if isinstance(annotation, type) and type(value) is annotation:
        return value
    raise _unfit(node, annotation, path)


def _unfit(node: Node, annotation: Any, path: str) -> Mismatch:
    return Mismatch(node, path, f"must be {describe(annotation)}, got {node.shown()}; {_remedy(node, annotation)}")


def _coerce_union(node: Node, annotation: Any, path: str) -> Any:
    close = None
    for arg in get_args(annotation):
        try:
            return coerce(node, arg, path)
        except Mismatch as failure:
            if failure.close or failure.node is not node:
                close = failure
    if close is not None:
        raise close
    raise _unfit(node, annotation, path)


def _remedy(node: Node, annotation: Any) -> str:
    """What to write instead. The intended value is unknown, so an example of a number, list or mapping is given."""
    origin, args = get_origin(annotation), get_args(annotation)
    plain, bounds = (args[0], args[1]) if origin is Annotated else (annotation, None)
    if origin in (types.UnionType, Union):
        return _remedy(node, args[0])
    if origin is Literal:
        return "write " + " or ".join(map(str, args))
    if plain is int and isinstance(node.value, float) and node.value.is_integer() and (bounds is None or bounds.holds(node.value)):
        return f"write {int(node.value)}"
    if plain is str:
        return "write text" if node.value is None or isinstance(node.value, (list, dict)) else "put it in quotes"
    remedies = {bool: "write true or false", None: "write null", type(None): "write null"}
    if plain in remedies:
        return remedies[plain]
    kind = "a list" if origin is list else "a mapping" if origin is dict else "a number"
    return f"write {kind} such as {_sample(annotation)}"


def _sample(annotation: Any) -> str:
    """A value that fits the annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation == Component:
        return "name"
    if origin is Annotated:
        bounds: Range = args[1]
        candidates = (5, bounds.low, bounds.high) if args[0] is int else (0.1, bounds.low + 1, (bounds.low + bounds.high) / 2)
        return f"{next(number for number in candidates if bounds.holds(number)):g}"
    if origin in (types.UnionType, Union, Literal):
        return str(args[0]) if origin is Literal else _sample(args[0])
    if origin is list:
        return f"[{_sample(args[0])}]"
    if origin is dict:
        return f"{{name: {_sample(args[1])}}}"
    return {int: "5", float: "0.1", bool: "true", str: "text"}.get(annotation, "value")
