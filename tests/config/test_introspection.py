"""Reading components from source text; oracle: the text itself, and Python's own evaluation of it."""

from __future__ import annotations

import ast
from typing import Any

from metaflowkit.config.introspection import REQUIRED, argument_docs, read_entry, registrations
from metaflowkit.config.schema import Count

SOURCE = '''
@RULES.register("mine")
class Mine:
    """Mine, in
    two lines.

    Args:
        a: first.
    """

    trait = 3

    def __init__(self, a: Count, b: float = 3 / 4, c: Elsewhere = Name.OTHER, *, d: list[int] | None = None) -> None: ...


@KIND.register("function")
def made(x: str = "y"): ...


@other("no")
class NotOne: ...
'''


def test_registrations_hold_names_settings_defaults_and_tags(tmp_path) -> None:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    (rules, mine), (kind, made) = registrations(path)
    assert (rules, mine.name, mine.summary, mine.tags) == ("RULES", "mine", "Mine, in two lines.", {"trait": 3})
    found = {s.name: (s.annotation, s.default, s.help) for s in mine.settings.values()}
    assert found == {"a": (Count, REQUIRED, "first."), "b": (float, 0.75, ""), "c": (Any, "Name.OTHER", ""), "d": (list[int] | None, None, "")}
    assert (kind, made.name, made.settings["x"].default) == ("KIND", "function", "y")


def test_annotations_are_read_with_the_names_that_are_given() -> None:
    (statement,) = ast.parse("def f(a: Mine, b: int): ...").body
    assert isinstance(statement, ast.FunctionDef)
    settings = read_entry("f", statement, "here", {"Mine": bool}).settings
    assert (settings["a"].annotation, settings["b"].annotation) == (bool, Any)


def test_argument_docs_join_lines_and_stop_at_the_next_section() -> None:
    doc = "What.\n\nArgs:\n    a: first\n        and more: of it.\n    b: second.\n\nReturns:\n    c: no argument."
    assert argument_docs(doc) == {"a": "first and more: of it.", "b": "second."}
    assert argument_docs("What.") == {}
