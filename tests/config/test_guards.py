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
from metaflowkit.config.choice import Choice
from metaflowkit.config.guards import guards_of
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.config.schema import Decay, Range
from metaflowkit.errors import ConfigError


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
        ("[x for x in a]", "'no'", {"a": [1]}, "no"),
        ("[x for x in a for y in b]", "'no'", {"a": [1], "b": [1]}, None),
        ("{x.lower() for x in a} & {x.lower() for x in b}", "'no'", {"a": ["X"], "b": ["x"]}, "no"),
        ("e := set(a) - set(b)", "', '.join(sorted(e))", {"a": ["y", "x"], "b": []}, "x, y"),
        ("a", "', '.join(a)", {"a": ["x"]}, "x"),
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
    if origin is list:
        return [[], samples(args[0])]
    if origin is dict:
        return [{}, *({key: samples(args[1])[-1]} for key in ("train", "elsewhere"))]
    if annotation is float:
        return [0.5]
    if origin is typing.Annotated and isinstance(args[1], Range):
        low, high = args[1].low, min(args[1].high, 100)
        values = {low, (low + high) / 2, high} if args[0] is float else {int(low), int(low) + 1, 17}
        return sorted(v for v in values if args[1].holds(v))
    return []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in registry.KINDS.values()
        if kind.reader is None
        for name, entry in kind.entries().items()
        if entry.guards and name != "gymnasium"  # whose environment refuses more
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_check_refuses_what_the_constructor_refuses_in_the_same_words(kind, name) -> None:
    importlib.import_module(kind.module)
    entry = kind.entries()[name]
    named = sorted({setting for guard in entry.guards for setting in guard.names})
    choices = [[*samples(entry.settings[setting].annotation), entry.settings[setting].default] for setting in named]
    choices = [[value for value in values if value is not REQUIRED] for values in choices]
    parameters = {"parameters": [torch.zeros(1)], "shape": (1, 16, 16), "outer_steps": 10}
    required = {s.name: samples(s.annotation)[0] for s in entry.settings.values() if s.default is REQUIRED}
    refused = 0
    for values in itertools.product(*choices):
        settings = {s.name: s.default for s in entry.settings.values()} | required | dict(zip(named, values))
        said = [text for guard in entry.guards if (text := guard.refusal(settings)) is not None]
        try:
            given = {key: value for key, value in parameters.items() if key in kind.injected}
            kind.build(Choice(name, settings), **given)
            assert not said, settings
        except ValueError as error:
            assert said[:1] == [str(error)], settings
            refused += 1
    assert refused or all(entry.settings[setting].annotation == Decay for setting in named)  # whose range leaves out what is refused


def test_the_components_whose_relations_are_read() -> None:
    read = {(kind.name, name) for kind in registry.KINDS.values() for name, entry in kind.entries().items() if entry.guards}
    assert {
        ("rule", "sgd"),
        ("optimizer", "sgd"),
        ("objective", "bootstrapped_kl"),
        ("dataset", "glyphs"),
        ("backbone", "mlp"),
        ("dataset", "omniglot"),
        ("dataset", "digits"),
        ("rule", "higher"),
        ("rule", "adamw"),
        ("tasks", "gymnasium"),
    } <= read


def definition(source: str) -> ast.FunctionDef:
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef)
    return function


def test_the_guards_of_a_function_that_a_constructor_calls_are_its_own() -> None:
    helper = definition("""
        def check(low, high, *, most=LIMIT):
            if low > high or high > most:
                raise ValueError(f"{low} to {high}")
    """)

    def find(name: str):
        return (helper, {"LIMIT": 10}) if name == "check" else None

    guards = guards_of(definition("def f(self, a, b=2):\n    check(a, high=b * SCALE)\n    other(a)\n    b = 1\n    check(a, b)\n"), {"SCALE": 3}, find)
    assert [guard.names for guard in guards] == [("a", "b")]
    for a, b, text in ((1, 2, None), (7, 2, "7 to 6"), (1, 4, "1 to 12")):
        assert guards[0].refusal({"a": a, "b": b}) == text


def test_a_constant_that_the_function_assigns_is_none() -> None:
    assert guards_of(definition("def f(a):\n    LIMIT = a\n    if a > LIMIT:\n        raise ValueError('no')\n"), {"LIMIT": 1}) == ()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("dataset={name: glyphs, train: [latin], test: [Latin]}", "dataset: train and test must not share a script, got latin in both; remove it from one"),
        ("dataset={name: digits, fractions: {train: 1.7, test: 1.0}}", "dataset: fractions must name train, val and test with shares that add up to at most 1"),
        ("dataset={name: folder, root: x, fractions: {trin: 0.5}}", "dataset: fractions must name train, val and test"),
        ("dataset={name: torchvision, set: MNIST, fractions: {val: -0.5}}", "dataset: fractions must name train, val and test"),
        ("inner.rule={name: higher, optimizer: SGD, options: {foo: 1}}", "inner.rule: torch.optim.SGD has no option 'foo'; use one of lr, momentum, dampening"),
        ("inner.rule={name: higher, optimizer: SGD, options: {maximize: true}}", "inner.rule: higher silently ignores 'maximize' of torch.optim.SGD"),
        ("tasks={name: gymnasium, signs: [mass]}", "tasks: signs must name attributes of physics, got mass; give each a range in physics"),
        ("tasks={name: gymnasium, physics: {gravity: [1.0]}, signs: []}", "tasks: physics must give each attribute [low, high], got gravity: [1.0]; give both"),
    ],
)
def test_check_says_once_what_the_constructor_says(override, says) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline_of({"dataset": "glyphs"}, [override])
    (problem,) = caught.value.problems
    assert says in problem
