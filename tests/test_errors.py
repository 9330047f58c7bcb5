"""Exit codes and messages of the exceptions; the table of codes in the test is the oracle."""

from __future__ import annotations

import inspect

import pytest

from metaflowkit import errors
from metaflowkit.errors import ConfigError, MetaflowkitError

CODES = {"MetaflowkitError": 1, "ConfigError": 2, "DataError": 1, "RunError": 1, "CheckpointError": 1, "DivergenceError": 1, "Interrupted": 130}


def test_every_exception_has_its_exit_code() -> None:
    found = {name: cls.exit_code for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}
    assert found == CODES


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
