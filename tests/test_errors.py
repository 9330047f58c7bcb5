"""Exit codes and messages of the exceptions; the table of codes in the test is the oracle."""

from __future__ import annotations

import inspect

import pytest

from metaflowkit import errors
from metaflowkit.errors import LINE, BrokenContract, ConfigError, DataError, Interrupted, MetaflowkitError, key_text, printable, quoted

CODES = {"MetaflowkitError": 1, "ConfigError": 2, "DataError": 1, "RunError": 1, "CheckpointError": 1, "DivergenceError": 1, "Interrupted": 130}


def test_every_exception_has_its_exit_code() -> None:
    codes = {name: cls.exit_code for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}
    assert codes == CODES | {"BrokenContract": 2}


def test_a_broken_contract_names_role_and_component() -> None:
    error = BrokenContract("objective", "Mine", "is wrong")
    assert (str(error), error.role, error.text) == ("objective: Mine is wrong", "objective", "Mine is wrong")
    assert isinstance(error, ConfigError)


@pytest.mark.parametrize("name", CODES)
def test_all_are_of_one_family_and_keep_their_text(name) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, MetaflowkitError)
    assert issubclass(cls, Exception)
    assert cls.__doc__
    assert str(cls("a.yaml: is wrong")) == "a.yaml: is wrong"


@pytest.mark.parametrize("given", [["one", "two"], ("one", "two"), (part for part in ("one", "two"))], ids=["list", "tuple", "generator"])
def test_problems_are_kept_one_by_one_and_shown_one_per_line(given) -> None:
    error = ConfigError(given)
    assert error.problems == ["one", "two"]
    assert str(error) == "one\ntwo"


def test_one_text_is_one_problem_and_the_list_is_a_copy() -> None:
    assert ConfigError("all of it").problems == ["all of it"]
    given = ["one"]
    error = ConfigError(given)
    given.append("two")
    assert error.problems == ["one"]


HOSTILE = ["\x00", "\x1b", "\x7f", "\x85", "\x9b", "\n", "\r", "\t", "\xa0", "\xad", "\u200b", "\u200f", "\u2028", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)),
           "\ufeff", "\udcff", "\ue000", "\U000e0041"]  # fmt: skip


@pytest.mark.parametrize("character", HOSTILE, ids=ascii)
def test_no_character_that_moves_the_cursor_or_turns_the_line_reaches_the_terminal(character) -> None:
    escaped = character.encode("unicode_escape").decode()
    assert printable(f"a{character}b é 文") == f"a{escaped}b é 文"
    for error in (DataError(f"a{character}b"), ConfigError(f"a{character}b"), ConfigError([f"a{character}b"]), Interrupted(f"a{character}b")):
        assert str(error) == f"a{escaped}b"
        assert str(error).isprintable()


def test_a_message_of_any_length_keeps_its_place_and_its_remedy() -> None:
    text = str(DataError("a.yaml:1:1: key: got " + "x" * 50_000 + "; write a word"))
    assert text.startswith("a.yaml:1:1: key: got xxx")
    assert "characters left out" in text
    assert text.endswith("xxx; write a word")
    assert len(text) < LINE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\n", r"'a\n'"),
        (1.5, "1.5"),
        ("x" * 60, repr("x" * 60)),
        ("x" * 61, repr("x" * 60) + "... (61 characters)"),
        (10**200, "1" + "0" * 59 + "... (201 characters)"),
        (["y" * 1000], "['" + "y" * 58 + "... (1,004 characters)"),
    ],
    ids=range(6),
)
def test_values_are_quoted_short(value, text) -> None:
    assert quoted(value) == text


@pytest.mark.parametrize("key", ["seed", "inner.rule.lr", "val/accuracy", "0.degrees", "a-b", "größe", "inner.rule.lr (sgd)"])
def test_a_plain_key_is_given_as_it_is(key) -> None:
    assert key_text(key) == key


@pytest.mark.parametrize("key", ["a: b", "a:", "a\nb", "", " a", "a;", "'a'", "a\u202e", "x" * 61, "\x1b[2J"])
def test_any_other_key_is_quoted(key) -> None:
    assert key_text(key) == quoted(key)
    assert key_text(key)[0] in "'\""


def test_an_interruption_exits_as_a_shell_says_it() -> None:
    assert (Interrupted("x").exit_code, Interrupted("x", "SIGINT").exit_code, Interrupted("x", "SIGTERM").exit_code) == (130, 130, 143)
