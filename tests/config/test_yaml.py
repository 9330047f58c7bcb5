"""YAML with places, overrides and atomic writes: tables by YAML 1.2's core schema, round trips, and a failing disk."""

from __future__ import annotations

import errno
import math
import os
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metaflowkit.config.yaml import Mark, Node, apply_overrides, parse_yaml, read_yaml, resolve, to_yaml, write_atomic
from metaflowkit.errors import ConfigError, RunError


def plain(text: str):
    return parse_yaml(text, "f.yaml").plain()


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+2", -150.0),
        ("+3", 3),
        ("-7", -7),
        ("010", 10),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        *(
            (word, word)
            for word in ("on", "off", "yes", "no", "y", "n", "1_000", "12:30", "2026-01-01", "1e", ".", "e3", "1.2.3", "١", "inf", "nan", "<<", "=")
        ),
    ],
)
def test_plain_scalars(text, value) -> None:
    parsed = plain(f"a: {text}")["a"]
    assert parsed == value
    assert type(parsed) is type(value)
    assert resolve(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("FALSE", False), ("Null", None), ("NULL", None), ("0x1F", 31), ("0o17", 15), ("+.inf", math.inf), (".INF", math.inf)]
)
def test_the_other_spellings_of_the_core_schema(text, value) -> None:
    """YAML 1.2.2, section 10.3.2, which :func:`resolve` names."""
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(resolve(".nan"))
    assert math.isnan(plain(to_yaml({"a": math.nan}))["a"])


@pytest.mark.parametrize("text", ["'1e-3'", '"1e-3"', "|-\n  1e-3", ">-\n  1e-3"])
def test_quoted_and_block_scalars_are_text(text) -> None:
    assert plain(f"a: {text}") == {"a": "1e-3"}


def test_keys_are_text_as_written() -> None:
    assert plain("1: a\nnull: b\n'true': c") == {"1": "a", "null": "b", "true": "c"}


def test_a_byte_order_mark_is_skipped() -> None:
    assert plain("\ufeffa: 1") == {"a": 1}


def test_marks_count_from_one_and_tell_keys_from_values() -> None:
    root = parse_yaml("# first\na:\n  - x\n  - {b: 1}\n", "f.yaml")
    assert root.mark == Mark("f.yaml", 2, 1)
    assert root.value["a"].key == Mark("f.yaml", 2, 1)
    x, mapping = root.value["a"].value
    assert (x.mark, x.key) == (Mark("f.yaml", 3, 5), None)
    assert mapping.value["b"].key == Mark("f.yaml", 4, 6)
    assert str(mapping.value["b"].mark) == "f.yaml:4:9"
    assert str(Mark("--set a=1")) == "--set a=1"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a: 1\nb: 2\na: 3", ["f.yaml:3:1: a: is given twice, first on line 1; keep one"]),
        ("{a: {b: 1, b: 2}}", ["f.yaml:1:12: b: is given twice, first on line 1; keep one"]),
        ("a: 1\n'a': 1\na: 1", ["f.yaml:2:1: a: is given twice, first on line 1; keep one", "f.yaml:3:1: a: is given twice, first on line 1; keep one"]),
        ("a: !!int 3", ["f.yaml:1:4: has the tag tag:yaml.org,2002:int; tags are not read, write a plain value"]),
        ("a:\n  - !!python/object:os.system x", ["f.yaml:2:5: has the tag tag:yaml.org,2002:python/object:os.system; tags are not read, write a plain value"]),
        ("a: !mine {b: 1}", ["f.yaml:1:4: has the tag !mine; tags are not read, write a plain value"]),
        ("? [1, 2]\n: x", ["f.yaml:1:3: a key must be text, got a sequence; write 'key: value'"]),
        ("a: &x [1, *x]", ["f.yaml:1:4: contains itself through an alias; write the value out"]),
        ("a: &x {b: {c: *x}}", ["f.yaml:1:4: contains itself through an alias; write the value out"]),
        ("a: *no", ["f.yaml:1:4: is not valid YAML, found undefined alias 'no'; check the indentation and brackets here"]),
    ],
)
def test_what_is_refused_and_where(text, parsed) -> None:
    assert problems(text) == parsed


@pytest.mark.parametrize("text", ["a: [", "a: 'x", "a:\n\t- 1", "a: 1\n---\nb: 2", "a: 1\n b: 2", "a: @x"])
def test_broken_syntax_has_a_place(text) -> None:
    (problem,) = problems(text)
    assert problem.startswith("f.yaml:")
    assert problem.split(":")[1].isdigit()
    assert "is not valid YAML" in problem


def test_a_control_character_is_one_problem_on_one_line() -> None:
    (problem,) = problems("a: \x07")
    assert problem.startswith("f.yaml")
    assert "is not valid YAML" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("text", ["a: " + "1" * 5000, "a: " + "[" * 3000 + "]" * 3000], ids=["huge number", "deep nesting"])
def test_absurd_input_is_a_problem_and_no_traceback(text) -> None:
    assert problems(text)


def test_anchors_and_aliases_stand_for_their_value() -> None:
    assert plain("a: &x {b: [1]}\nc: *x\nd: [*x, *x]") == {"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}, {"b": [1]}]}


def test_shown() -> None:
    shown = [node.shown() for node in parse_yaml("[{}, [], null, true, x, 1.5]", "f").value]
    assert shown == ["a mapping", "a list", "nothing", "true", "'x'", "1.5"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; start from one of the files under pipelines/"),
        (b"# only a comment\n", "is empty; start from"),
        (b"caf\xe9: 1", "must be UTF-8 text that you may read"),
        (b"\xff\xfea\x00", "must be UTF-8 text that you may read"),
        (b"\n- 1", ":2:1: must be a mapping of keys to values, got a list; write 'key: value' lines"),
        (b"word", ":1:1: must be a mapping of keys to values, got 'word'"),
    ],
)
def test_files_that_are_no_mapping(tmp_path, content, says) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


def test_files_that_are_missing(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file; check the path"):
        read_yaml(tmp_path / "no.yaml")
    (tmp_path / "b.yaml").write_text("")
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no such file; that folder holds a\.yaml, b\.yaml"):
        read_yaml(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="no such file; check the path"):
        read_yaml(tmp_path / "nowhere" / "no.yaml")
    with pytest.raises(ConfigError, match="is a directory, not a file"):
        read_yaml(tmp_path)


# ---- overrides


BASE = "a: {b: 1, c: [x, {d: 2}]}\nrule: sgd\nempty:\n"


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([], {}),
        (["a.b=5"], {"a": {"b": 5, "c": ["x", {"d": 2}]}}),
        (["a.new=1e-3"], {"a": {"b": 1, "c": ["x", {"d": 2}], "new": 0.001}}),
        (["a.c.1.d=y"], {"a": {"b": 1, "c": ["x", {"d": "y"}]}}),
        (["a.c.0=[1, 2]"], {"a": {"b": 1, "c": [[1, 2], {"d": 2}]}}),
        (["a.c.0.p=1"], {"a": {"b": 1, "c": [{"name": "x", "p": 1}, {"d": 2}]}}),
        (["a={}"], {"a": {}}),
        (["rule.lr=0.1", "rule.momentum=0.9"], {"rule": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}),
        (["rule.lr=0.1", "rule=adam"], {"rule": "adam"}),
        (["empty.deep.er=true"], {"empty": {"deep": {"er": True}}}),
        (["new.key=x=y"], {"new": {"key": "x=y"}}),
        ([" a.b =7"], {"a": {"b": 7, "c": ["x", {"d": 2}]}}),
        (["a.b="], {"a": {"b": None, "c": ["x", {"d": 2}]}}),
        (["a.b=1", "a.b=2"], {"a": {"b": 2, "c": ["x", {"d": 2}]}}),
    ],
)
def test_overrides(overrides, changed) -> None:
    root = parse_yaml(BASE, "f.yaml")
    before = root.plain()
    assert apply_overrides(root, overrides).plain() == {**before, **changed}
    assert root.plain() == before


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a.b", "--set a.b: must be path=value, such as inner.steps=5"),
        ("=1", "--set =1: must be path=value"),
        ("a..b=1", "--set a..b=1: must be path=value"),
        (".a=1", "--set .a=1: must be path=value"),
        ("a.b.x=1", "--set a.b.x=1: a.b.x: 'x' would stand below 1, which holds no keys; set the key above it"),
        ("a.c.3=1", "--set a.c.3=1: a.c.3: '3' is no place in a list of 2; use 0 to 1, or 2 to append"),
        ("a.c.-1=1", "'-1' is no place in a list of 2"),
        ("a.c.b=1", "'b' is no place in a list of 2"),
        ("a=[", "--set a=[:1:2: is not valid YAML"),
        ("a=!x 1", "--set a=!x 1:1:1: has the tag !x"),
    ],
)
def test_overrides_that_lead_nowhere(override, says) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(parse_yaml(BASE, "f.yaml"), [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_place_after_the_last_appends() -> None:
    overrides = ["a.c.2.d.e=5", "empty=[]", "empty.0=1", "empty.1=2"]
    assert apply_overrides(parse_yaml(BASE, "f.yaml"), overrides).plain()["a"]["c"] == ["x", {"d": 2}, {"d": {"e": 5}}]
    assert apply_overrides(parse_yaml(BASE, "f.yaml"), overrides).plain()["empty"] == [1, 2]
    with pytest.raises(ConfigError, match=r"a\.1: '1' is no place in a list of 0; use 0 to append"):
        apply_overrides(parse_yaml("a: []", "f.yaml"), ["a.1=1"])


@pytest.mark.parametrize("digit", ["²", "١"])
def test_only_plain_digits_are_places(digit) -> None:
    with pytest.raises(ConfigError, match="is no place in a list"):
        apply_overrides(parse_yaml("a: [1, 2, 3]", "f.yaml"), [f"a.{digit}=1"])


def test_an_override_is_the_place_of_its_value() -> None:
    root = apply_overrides(parse_yaml(BASE, "f.yaml"), ["a.b=5"])
    assert root.value["a"].value["b"] == Node(5, Mark("--set a.b=5"), Mark("--set a.b=5"))


# ---- round trip


TRICKY = [
    "1e-3", "true", "", "# x", "a: b", "null", "~", ".inf", ".nan", "on", "\n", " a", "a ", "é", "\u2028", "\x85", "\ufeff", "\t", "3\n", "😀",
    "<<", "=", "-", "- x", "?", "!x", "&x", "*x", "12:30", "0x10", "'", '"', "%", "@", "`", "\r\n", "\x7f", "---", "...", "word " * 40, "w" * 300,
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(TRICKY)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(TRICKY), inner, max_size=3), max_leaves=8
)


def same(a, b) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


@pytest.mark.parametrize("text", TRICKY, ids=repr)
def test_tricky_texts_come_back(text) -> None:
    for value in (text, [text], {"k": text}, {text: 1}, {"k": {text: [text]}}):
        assert same(plain(to_yaml(value)), value)


@settings(deadline=None)
@given(VALUES)
@example({"x": 1e16, "y": -0.0, "z": 10**30, "empty": [{}, [], [[]]]})
def test_any_plain_value_comes_back(value) -> None:
    assert same(plain(to_yaml(value)), value)


def test_shared_values_are_written_out() -> None:
    shared = [1, 2]
    assert "&" not in to_yaml({"a": shared, "b": shared})


# ---- atomic writes


def test_write_makes_the_folder_and_replaces(tmp_path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for content in (b"old", b"", b"new"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_failing_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, call, number) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*args) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(RunError) as caught:
            write_atomic(path, b"new")
    remedy = "see that the folder is there and may be written, or choose another place" if number == errno.EIO else "free space or choose another place"
    assert str(caught.value) == f"{path}: cannot be written ({os.strerror(number)}); {remedy}, earlier files are whole"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def interrupt(handle) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_a_file(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(RunError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "x", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_the_data_is_on_disk_before_the_name(tmp_path, monkeypatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "file", b"new")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_reader_never_sees_a_part(tmp_path) -> None:
    path = tmp_path / "file"
    contents = [bytes([65 + i]) * 200_000 for i in range(2)]
    write_atomic(path, contents[0])
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_bytes() in contents)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_atomic(path, contents[i % 2])
    done.set()
    reader.join()
    assert len(seen) > 10
    assert all(seen)
