"""Refusals read from source: a table of what is walked and what is left, and the constructors themselves as the oracle."""

from __future__ import annotations

import ast
import importlib
import itertools
import textwrap
import types
import typing
from typing import Any, Literal

import pytest
import torch

from metaflowkit.config import registry
from metaflowkit.config.guards import guards_of
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.schema import Range


def refusals(source: str, **settings: Any) -> list[str]:
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef)
    return [text for guard in guards_of(function) if (text := guard.refusal(settings)) is not None]


@pytest.mark.parametrize(
    ("condition", "text", "settings", "said"),
    [
        ("a and not b", "'no'", {"a": True, "b": 0}, "no"),
        ("a and not b", "'no'", {"a": True, "b": 0.5}, None),
        ("a or b", "f'{a} {b!r} {c:.1f}'", {"a": "x", "b": "y", "c": 2}, "x 'y' 2.0"),
        ("1 <= a < b + c * 2 - 1", "f'{a}'", {"a": 2, "b": 1, "c": 2}, "2"),
        ("1 <= a < b + c * 2 - 1", "f'{a}'", {"a": 4, "b": 1, "c": 2}, None),
        ("a > (16 if b is None else len(b))", "f'{16 if b is None else len(b)}'", {"a": 17, "b": None}, "16"),
        ("a > (16 if b is None else len(b))", "f'{16 if b is None else len(b)}'", {"a": 3, "b": ["x"]}, "1"),
        ("a == 'x' and not (b and set(b) <= {'p', 'q'})", "'no'", {"a": "x", "b": {"p": 1, "z": 2}}, "no"),
        ("a == 'x' and not (b and set(b) <= {'p', 'q'})", "'no'", {"a": "x", "b": {"p": 1}}, None),
        ("a not in [1, -2]", "'no'", {"a": -2}, None),
        ("sum(a) != max(b, c)", "'no'", {"a": [1, 2], "b": 3, "c": 1}, None),
        ("a < b", "'no'", {"a": 1, "b": None}, None),  # a TypeError is the constructor's to raise
        ("a.b", "'no'", {"a": 1}, None),
        ("open(a)", "'no'", {"a": "/etc/passwd"}, None),
        ("(lambda: a)()", "'no'", {"a": 1}, None),
        ("[x for x in a]", "'no'", {"a": [1]}, None),
        ("a", "', '.join(a)", {"a": ["x"]}, None),
        ("given > a", "'no'", {"a": 1}, None),
        ("a ** b > 0", "'no'", {"a": 10, "b": 10**10}, None),
    ],
)  # fmt: skip
def test_what_is_walked(condition, text, settings, said) -> None:
    source = f"def f(self, a, b, c=1, *, d=2):\n    x = 1\n    if {condition}:\n        raise ValueError({text})\n"
    assert refusals(source, **settings) == ([said] if said is not None else [])


def test_a_name_that_was_assigned_before_is_no_setting_any_more() -> None:
    source = """
    def f(a, b):
        if a > 1:
            raise ValueError("first")
        a = b
        if a > 1:
            raise ValueError("second")
        if b > 1:
            raise ValueError("third")
            print("more than one statement is not read")
        if b > 1:
            raise TypeError("another exception is not read")
    """
    assert refusals(source, a=2, b=2) == ["first"]


def samples(annotation: Any) -> list[Any]:
    """A few values that an annotation takes, the ends of its range among them."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return list(args)
    if annotation in (bool, str, None, type(None)):
        return {bool: [False, True], str: ["x"]}.get(annotation, [None])
    if origin in (types.UnionType, typing.Union):
        return [sample for arg in args for sample in samples(arg)]
    if origin in (list, dict):
        return [[], samples(args[0])] if origin is list else [{}, {"train": samples(args[1])[0]}]
    if annotation is float:
        return [0.5]
    if origin is typing.Annotated and isinstance(args[1], Range):
        low, high = args[1].low, min(args[1].high, 100)
        values = {low, (low + high) / 2, high} if args[0] is float else {int(low), int(low) + 1, 17}
        return sorted(v for v in values if args[1].holds(v))
    return []


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in registry.KINDS.values() if kind.reader is None for name, entry in kind.entries().items() if entry.guards],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_check_refuses_what_the_constructor_refuses_in_the_same_words(kind, name) -> None:
    importlib.import_module(kind.module)
    entry = kind.entries()[name]
    named = sorted({setting for guard in entry.guards for setting in guard.names})
    choices = [[*samples(entry.settings[setting].annotation), entry.settings[setting].default] for setting in named]
    choices = [[value for value in values if value is not REQUIRED] for values in choices]
    parameters = {"parameters": [torch.zeros(1)], "shape": (1, 16, 16)}
    required = {s.name: samples(s.annotation)[0] for s in entry.settings.values() if s.default is REQUIRED}
    refused = 0
    for values in itertools.product(*choices):
        settings = {s.name: s.default for s in entry.settings.values()} | required | dict(zip(named, values))
        said = [text for guard in entry.guards if (text := guard.refusal(settings)) is not None]
        try:
            given = {key: value for key, value in parameters.items() if key in kind.injected}
            kind.build(registry.Choice(name, settings), **given)
            assert not said, settings
        except ValueError as error:
            assert said[:1] == [str(error)], settings
            refused += 1
    assert refused


def test_the_components_whose_relations_are_read() -> None:
    read = {(kind.name, name) for kind in registry.KINDS.values() for name, entry in kind.entries().items() if entry.guards}
    assert {
        ("rule", "sgd"),
        ("optimizer", "sgd"),
        ("objective", "bootstrapped_kl"),
        ("dataset", "glyphs"),
        ("backbone", "mlp"),
        ("dataset", "omniglot"),
    } <= read
