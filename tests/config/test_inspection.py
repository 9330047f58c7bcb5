"""Constructors of every form: what is read of them is what a call takes."""

from __future__ import annotations

import collections
from typing import NamedTuple

import pytest

from metaflowkit.config.choice import Choice
from metaflowkit.config.inspection import constructor_parameters, inspected
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.registry import SCHEDULES


class Made:
    def __new__(cls, steps: int, k: float = 1.0):
        made = super().__new__(cls)
        made.steps, made.k = steps, k
        return made

    def __call__(self, step): ...


class Pair(NamedTuple):
    steps: int
    k: float = 1.0

    def __call__(self, step): ...


class Derived(collections.namedtuple("Derived", ["steps", "k"], defaults=[1.0])):
    def __call__(self, step): ...


class Positional:
    def __init__(self, steps: int, k: float = 1.0, /) -> None:
        self.steps, self.k = steps, k

    def __call__(self, step): ...


class Single:
    """Both: Python passes the arguments to each."""

    def __new__(cls, *args, **keywords):
        return super().__new__(cls)

    def __init__(self, steps: int, k: float = 1.0) -> None:
        self.steps, self.k = steps, k

    def __call__(self, step): ...


class Passing(Single):
    def __init__(self, **keywords) -> None:
        super().__init__(**keywords)


def function(steps: int, /, k: float = 1.0):
    return Positional(steps, k)


@pytest.mark.parametrize("component", [Made, Pair, Derived, Positional, Single, Passing, function])
def test_settings_are_read_and_built_with_what_the_builder_passes(component, monkeypatch) -> None:
    entry = inspected("mine", component, {})
    assert {name: setting.default for name, setting in entry.settings.items()} == {"steps": REQUIRED, "k": 1.0}
    monkeypatch.setitem(SCHEDULES.classes, "mine", component)
    built = SCHEDULES.build(Choice("mine", {"k": 2.0}), steps=7, seed=1)
    assert (built.steps, built.k) == (7, 2.0)


def test_constructors_of_other_languages_have_no_keywords() -> None:
    assert constructor_parameters(type("Numbers", (dict,), {})) == {}
