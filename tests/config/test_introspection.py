"""Reading components from source text; oracle: the text itself, and Python's own evaluation of it."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import REQUIRED, argument_docs, read_entry, registrations
from metaflowkit.config.schema import Count
from metaflowkit.errors import ConfigError

SOURCE = '''
NAME, LIMIT = "n", 2
SIZE: int = 2**3
SIZES = (SIZE, SIZE + 1)

@RULES.register("mine")
class Mine:
    """Mine, in
    two lines.

    Args:
        a: first.
    """

    trait = 3

    def __init__(self, a: Count, b: float = 3 / 4, c: Elsewhere = SIZES, *, d: list[int] | None = None) -> None: ...


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
    read_settings = {s.name: (s.annotation, s.default, s.help) for s in mine.settings.values()}
    assert read_settings == {"a": (Count, REQUIRED, "first."), "b": (float, 0.75, ""), "c": (Any, (8, 9), ""), "d": (list[int] | None, None, "")}
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


@pytest.mark.parametrize("default", ["Name.OTHER", "NAME", "open('x')", "(1).__class__", "9**9**9", "[x for x in (1, 2) for y in (3,)]", "1 / 0"])
def test_a_default_that_cannot_be_read_is_an_error_and_nothing_is_run(tmp_path, default) -> None:
    path = tmp_path / "source.py"
    path.write_text(f'import os\n\n\n@RULES.register("mine")\ndef mine(a=1, b={default}): ...\n')
    with pytest.raises(ConfigError) as caught:
        registrations(path)
    shown = ast.unparse(ast.parse(default))
    assert str(caught.value) == f"{path}:5: the default {shown} cannot be read from the source; write a number, a text or a constant of that module"


def test_a_constant_of_the_module_is_a_default_also_for_the_constructor(tmp_path, monkeypatch) -> None:
    (tmp_path / "with_constant.py").write_text(
        "from metaflowkit.config.registry import LOSSES\n\nDEFAULT_T = 0.5\n\n\n@LOSSES.register('constant')\nclass Constant:\n"
        "    def __init__(self, temperature: float = DEFAULT_T) -> None:\n        self.temperature = temperature\n\n    def __call__(self, outputs, y): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from metaflowkit.config import registry

    entry = registry.LOSSES.entries(["with_constant"])["constant"]
    assert entry.settings["temperature"].default == 0.5
    registry.import_plugin("with_constant")
    try:
        assert registry.LOSSES.build(Choice("constant", {"temperature": entry.settings["temperature"].default})).temperature == 0.5
    finally:
        registry.LOSSES.classes.pop("constant")


def test_tags_come_from_bases_too_the_nearest_first(tmp_path, monkeypatch) -> None:
    (tmp_path / "base_of_tags.py").write_text("class Far:\n    one = 1\n    two = 2\n    read = open\n")
    path = tmp_path / "derived_tags.py"
    path.write_text("from base_of_tags import Far as F\n\n\nclass Near(F):\n    two = 22\n\n\n@RULES.register('x')\nclass X(Near):\n    three: int = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registrations(path)[0][1].tags == {"one": 1, "two": 22, "three": 3}
