"""Annotations as schemas: tables of what each accepts, what it says otherwise, and how it is described."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaflowkit.config.schema import Count, Decay, Fraction, Mismatch, Natural, NonNegative, Positive, Range, Side, coerce, describe, nearest
from metaflowkit.config.yaml import Mark, parse_yaml


def node(text: str):
    return parse_yaml("at: " + text, "f.yaml").value["at"]


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-3", float, 0.001),
        ("true", bool, True),
        ("on", str, "on"),
        ("'3'", str, "3"),
        ("1", Count, 1),
        ("0", Natural, 0),
        ("2", Positive, 2.0),
        ("0", NonNegative, 0.0),
        ("1", Fraction, 1.0),
        ("0", Fraction, 0.0),
        ("0", Decay, 0.0),
        ("0.999", Decay, 0.999),
        ("4096", Side, 4096),
        ("9223372036854775807", Count, 2**63 - 1),
        ("-9223372036854775808", int, -(2**63)),
        ("1000000000000", float, 1e12),
        ("null", Positive | None, None),
        ("", Count | None, None),
        ("5", Count | list[Count], 5),
        ("[5, 20]", Count | list[Count], [5, 20]),
        ("[]", list[str], []),
        ("{train: 1, test: 0.5}", dict[str, float], {"train": 1.0, "test": 0.5}),
        ("cosine", Literal["cosine", "euclidean"], "cosine"),
        ("[1, {a: [x]}]", Any, [1, {"a": ["x"]}]),
        ("[[1], []]", list[list[int]], [[1], []]),
    ],
)
def test_fitting_values(text, annotation, value) -> None:
    coerced = coerce(node(text), annotation, "at")
    assert coerced == value
    assert type(coerced) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "path", "message"),
    [
        ("3.0", int, "at", "must be a whole number, got 3.0; write 3"),
        ("3.5", int, "at", "must be a whole number, got 3.5; write a number such as 5"),
        ("true", int, "at", "must be a whole number, got true; write a number such as 5"),
        ("false", float, "at", "must be a number, got false; write a number such as 0.1"),
        ("1", bool, "at", "must be true or false, got 1; write true or false"),
        ("yes", bool, "at", "must be true or false, got 'yes'; write true or false"),
        ("3", str, "at", "must be text, got 3; put it in quotes"),
        ("true", str, "at", "must be text, got true; put it in quotes"),
        ("", str, "at", "must be text, got nothing; write text"),
        ("[a]", str, "at", "must be text, got a list; write text"),
        ("0", Count, "at", "must be a whole number of at least 1, got 0; raise it to 1"),
        ("x", Count, "at", "must be a whole number of at least 1, got 'x'; write a number such as 5"),
        ("0.0", Count, "at", "must be a whole number of at least 1, got 0.0; write a number such as 5"),
        ("two", Annotated[int, Range(1, 4)], "at", "must be a whole number from 1 to 4, got 'two'; write a number such as 1"),
        ("two", Annotated[int, Range(7)], "at", "must be a whole number of at least 7, got 'two'; write a number such as 7"),
        ("x", Annotated[float, Range(2, above=True)], "at", "must be a number above 2, got 'x'; write a number such as 3"),
        ("x", Annotated[float, Range(0.5, 1)], "at", "must be a number from 0.5 to 1, got 'x'; write a number such as 0.75"),
        ("-1", Natural, "at", "must be a whole number of at least 0, got -1; raise it to 0"),
        ("0", Positive, "at", "must be a number above 0, got 0.0; raise it above 0"),
        ("-0.5", NonNegative, "at", "must be a number of at least 0, got -0.5; raise it to 0"),
        ("1.5", Fraction, "at", "must be a number from 0 to 1, got 1.5; keep it between 0 and 1"),
        ("-1", Positive | None, "at", "must be a number above 0, got -1.0; raise it above 0"),
        ("x", Positive | None, "at", "must be a number above 0 or null, got 'x'; write a number such as 0.1"),
        ("0", Count | list[Count], "at", "must be a whole number of at least 1, got 0; raise it to 1"),
        ("[5, 0]", Count | list[Count], "at.1", "must be a whole number of at least 1, got 0; raise it to 1"),
        ("[5, a]", Count | list[Count], "at.1", "must be a whole number of at least 1, got 'a'; write a number such as 5"),
        ("{a: 1}", list[int], "at", "must be a list (a whole number each), got a mapping; write a list such as [5]"),
        ("a", list[str], "at", "must be a list (text each), got 'a'; write a list such as [text]"),
        ("a", list[Literal["x", "y"]], "at", "must be a list (one of x, y each), got 'a'; write a list such as [x]"),
        ("{train: {x: 1}}", dict[str, float], "at.train", "must be a number, got a mapping; write a number such as 0.1"),
        ("[1]", dict[str, float], "at", "must be a mapping (a number each), got a list; write a mapping such as {name: 0.1}"),
        ("cosin", Literal["cosine", "euclidean"], "at", "must be one of cosine, euclidean, got 'cosin'; did you mean 'cosine'?"),
        ("[cosine]", Literal["cosine"], "at", "must be one of cosine, got a list; "),
        ("x", Literal["a", "b"] | None, "at", "must be one of a, b or null, got 'x'; write a or b"),
        ("1", None, "at", "must be null, got 1; write null"),
        ("1", Decay, "at", "must be a number of at least 0 and below 1, got 1.0; keep it of at least 0 and below 1"),
        ("0", Side, "at", "must be a whole number of at least 1, got 0; raise it to 1"),
        ("4097", Side, "at", "must be at most 4096, got 4097; lower it"),
        ("9223372036854775808", int, "at", "must be a whole number of at most 64 bits, got 9223372036854775808; write a smaller one"),
        ("9223372036854775808", Count | list[Count], "at", "must be a whole number of at most 64 bits, got 9223372036854775808; write a smaller one"),
        ("-1e13", float, "at", "must be a number of at most 1e+12 in size, got -10000000000000.0; write a smaller one"),
        (".nan", Positive, "at", "must be a number of at most 1e+12 in size, got nan; write a smaller one"),
        ("1" + "0" * 299, Positive | None, "at", "must be a number of at most 1e+12 in size, got 1" + "0" * 59 + "... (300 characters); write a smaller one"),
    ],
)
def test_misfits_name_the_innermost_node(text, annotation, path, message) -> None:
    with pytest.raises(Mismatch) as caught:
        coerce(node(text), annotation, "at")
    assert caught.value.path == path
    assert caught.value.message == message or (message.endswith("; ") and caught.value.message.startswith(message))
    assert str(caught.value) == caught.value.message


def test_a_misfit_carries_the_place_of_the_item() -> None:
    with pytest.raises(Mismatch) as caught:
        coerce(node("[5, 20, a]"), list[int], "way")
    assert caught.value.node.mark == Mark("f.yaml", 1, 13)


@given(st.floats(allow_nan=True), st.floats(-5, 5), st.floats(0, 5), st.booleans())
def test_a_range_holds_what_lies_in_it(number, low, span, above) -> None:
    inside = not math.isnan(number) and low <= number <= low + span and not (above and number == low)
    assert Range(low, low + span, above).holds(number) is inside


def test_nan_is_outside_every_range() -> None:
    assert not any(args.holds(math.nan) for args in (Range(0), Range(0, above=True), Range(0, 1), Range(-math.inf)))


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "a whole number"),
        (float, "a number"),
        (bool, "true or false"),
        (str, "text"),
        (Any, "any value"),
        (None, "null"),
        (Count, "a whole number of at least 1"),
        (Annotated[int, Range(1, 4)], "a whole number from 1 to 4"),
        (Positive | None, "a number above 0 or null"),
        (Count | list[Count], "a whole number of at least 1 or a list (a whole number of at least 1 each)"),
        (dict[str, float], "a mapping (a number each)"),
        (Literal["a", "b"], "one of a, b"),
    ],
)
def test_describe(annotation, text) -> None:
    assert describe(annotation) == text


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("protoype", ["prototype", "linear"], "did you mean 'prototype'?"),
        ("zzz", ["prototype", "linear"], "use one of prototype, linear"),
        ("zzz", (k for k in ("a", "b")), "use one of a, b"),
        ("zzz", [], "none exists"),
    ],
)
def test_nearest(name, known, text) -> None:
    assert nearest(name, known) == text
