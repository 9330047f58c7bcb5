"""Expressions are walked: their values are Python's, and what is not walked is refused."""

from __future__ import annotations

import ast

import pytest

from metaflowkit.config.expressions import Unreadable, evaluate


def value(text: str, **names):
    return evaluate(ast.parse(text, mode="eval").body, names)


@pytest.mark.parametrize(
    "text",
    ["1e-3", "-2", "2**31 - 1", "7 // 2 + 7 % 4 + 3 / 4", "(1, 'a')", "[1, [2]]", "{'a': 1}", "{1, 2}", "None", "1 < 2 <= 2", "not 1 or 3", "1 if 0 else 2"]
    + ["len([1, 2])", "max(1, 2)", "f'{3:04d} {1 + 1!r}'", "(4, 5)[1]", "6 & 3 | 8"]
    + ["[2 * i for i in (1, 2, 3) if i > 1]", "{a.lower() for a in ['A', 'a']}", "sum(b for a, b in {'x': 1, 'y': 2}.items())", "', '.join(sorted({'b', 'a'}))"]
    + ["any(v < 0 for v in {'a': -1}.values())"],
)
def test_values_are_pythons(text) -> None:
    assert value(text) == eval(text)


def test_names_stand_for_what_is_given() -> None:
    assert value("a | None", a=int) == int | None
    assert value("list[a]", list=list, a=float) == list[float]


@pytest.mark.parametrize(
    "text",
    ["x", "x.y", "open('f')", "(lambda: 1)()", "[i for i in (1,) for j in (2,)]", "[0 for i[0] in (1,)]", "'a'.format()", "{**{}}", "len(**{})", "1 @ 2", "~1"],
)
def test_what_is_not_walked_is_refused(text) -> None:
    with pytest.raises(Unreadable):
        value(text)


def test_a_power_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(OverflowError):
        value("9**9**9")
