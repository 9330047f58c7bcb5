"""Strict YAML with the line and column of every value, dotted overrides, atomic writes."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import yaml

from metaflowkit.config.files import write_atomic as write_atomic
from metaflowkit.errors import QUOTE, ConfigError, key_text, quoted

Scalar = Union[str, int, float, bool, None]

_INT = re.compile(r"[-+]?[0-9]+$")
_OTHER_BASE = re.compile(r"0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
DIGITS = 300  # of a whole number, so that every one fits in a float
DEPTH = 50  # levels of nesting
NODES = 20_000  # of a document, aliases written out
CHARACTERS = 4_000_000  # of a file
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True)
class Mark:
    """A position: file (or ``--set``), line and column from 1; line 0 means that the source has no lines."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Node:
    """A YAML value with its position.

    Attributes:
        value: a scalar, a list of nodes, or a mapping from key to node.
        mark: position of the value.
        key: position of its key, for entries of a mapping.
        implied: whether it is in no file, but on the path of an override.
    """

    value: Any
    mark: Mark
    key: Mark | None = None
    implied: bool = False

    def plain(self) -> Any:
        """The value without positions: scalars, lists and dicts."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def shown(self) -> str:
        """The value as an error message quotes it."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        if self.value is None:
            return "nothing"
        return str(self.value).lower() if isinstance(self.value, bool) else quoted(self.value)


def resolve(text: str) -> Scalar:
    """An unquoted scalar by the rules of YAML 1.2's core schema (``1e-3`` is a number, ``on`` is text).

    Raises:
        ValueError: a whole number of more digits than any setting has.

    Example:
        >>> [resolve(text) for text in ("1e-3", "3", "on", "true", "")]
        [0.001, 3, 'on', True, None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > DIGITS and (_INT.match(text) or _OTHER_BASE.match(text)):
        raise ValueError(f"more than {DIGITS} digits")
    if _INT.match(text):
        return int(text)
    if _OTHER_BASE.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text


def read_yaml(path: str | Path) -> Node:
    """Read a YAML file whose document is a mapping.

    Raises:
        ConfigError: the file is missing, empty, a directory, not UTF-8, not YAML, not a mapping, or repeats a key.
    """
    path = Path(path)
    if os.path.isdir(path):  # false also of a name that is too long for the system, where Path raises an error
        raise ConfigError(f"{path}: is a directory, not a file; name the YAML file in it")
    try:
        with path.open(encoding="utf-8") as handle:
            text = handle.read(CHARACTERS + 1)
    except FileNotFoundError:
        files = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; that folder holds {', '.join(files)}" if files else "; check the path"
        raise ConfigError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); it must be UTF-8 text that you may read") from None
    if len(text) > CHARACTERS:
        raise ConfigError(f"{path}: holds more than {CHARACTERS:,} characters; give the YAML file of a pipeline or a search")
    node = parse_yaml(text, str(path))
    if node.value is None:
        raise ConfigError(f"{path}: is empty; start from one of the files under pipelines/")
    if not isinstance(node.value, dict):
        raise ConfigError(f"{node.mark}: must be a mapping of keys to values, got {node.shown()}; write 'key: value' lines")
    return node


def parse_yaml(text: str, source: str) -> Node:
    """Parse one YAML document; ``source`` is the file name that messages give.

    Raises:
        ConfigError: with line and column, for broken syntax, tags, keys that are not text, or repeated keys.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Mark(source, mark.line + 1, mark.column + 1) if mark else Mark(source)
        raise ConfigError(f"{position}: is not valid YAML, {error.problem}; check the indentation and brackets here") from None
    except (ValueError, OverflowError):
        raise ConfigError(f"{source}: is not valid YAML, an escape names no character; check what follows its backslashes") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: is not valid YAML, {' '.join(str(error).split())}; save it as plain UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"{source}: nests too deeply to be read; flatten it") from None
    if root is None:
        return Node(None, Mark(source, 1, 1))
    problems: list[str] = []
    node = _convert(root, source, problems, (), itertools.count(1))
    if problems:
        raise ConfigError(problems)
    return node


def _convert(node: yaml.Node, source: str, problems: list[str], above: tuple[yaml.Node, ...], count: Iterator[int]) -> Node:
    mark = Mark(source, node.start_mark.line + 1, node.start_mark.column + 1)
    if node in above:
        problems.append(f"{mark}: contains itself through an alias; write the value out")
        return Node(None, mark)
    if len(above) > DEPTH:
        problems.append(f"{mark}: nests deeper than {DEPTH} levels; flatten it")
        return Node(None, mark)
    if next(count) > NODES:
        raise ConfigError(f"{mark}: comes after {NODES:,} values, aliases written out, and nothing here needs so many; shorten the file")
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in ("str", "seq", "map"):
        problems.append(f"{mark}: has the tag {node.tag}; tags are not read, write a plain value")
        return Node(None, mark)
    if isinstance(node, yaml.SequenceNode):
        return Node([_convert(item, source, problems, (*above, node), count) for item in node.value], mark)
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_mark = Mark(source, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            key = key_node.value
            if not isinstance(key, str):
                problems.append(f"{key_mark}: a key must be text, got a {key_node.id}; write 'key: value'")
                continue
            if key in entries:
                problems.append(f"{key_mark}: {key_text(key)}: is given twice, first on line {entries[key].key.line}; keep one")  # type: ignore[union-attr]
                continue
            entries[key] = replace(_convert(value_node, source, problems, (*above, node), count), key=key_mark)
        return Node(entries, mark)
    try:
        return Node(resolve(node.value) if getattr(node, "style", None) is None else node.value, mark)
    except ValueError:
        problems.append(f"{mark}: is a number of {len(node.value):,} digits; write one of at most {DIGITS}")
        return Node(None, mark)


def apply_overrides(root: Node, overrides: Sequence[str]) -> Node:
    """Apply ``path.to.key=value`` overrides in their order; the value is YAML.

    A path may pass through a component written as a bare name (``rule: sgd`` becomes ``{name: sgd, ...}``), through one that
    is the default, and through a list by its index, where the index after the last appends. Setting a whole node replaces it.

    Raises:
        ConfigError: an override without ``=``, or a path that leads through a number or past a list's end.
    """
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise ConfigError(f"{_override(text)}: must be path=value, such as inner.steps=5")
        mark = Mark(_override(text))
        root = put(root, path.strip(), replace(parse_yaml(value, mark.file), mark=mark, key=mark))
    return root


def _override(text: str) -> str:
    return f"--set {text}" if len(text) <= QUOTE else f"--set {text[:QUOTE]}... ({len(text):,} characters)"


def put(root: Node, path: str, value: Node, above: str = "") -> Node:
    """The same nodes with ``value`` at a dotted path; see :func:`apply_overrides`. Messages begin with the path of ``root``, ``above``."""
    keys, mark = path.split("."), value.key or value.mark
    whole = key_text(f"{above}.{path}" if above else path)
    if len(keys) > DEPTH:
        raise ConfigError(f"{mark}: {whole}: leads through more than {DEPTH} levels; shorten it")
    return _put(root, keys, value, mark, whole)


def as_node(plain: Any, mark: Mark) -> Node:
    """Plain values as nodes with the same position."""
    if isinstance(plain, dict):
        return Node({key: as_node(item, mark) for key, item in plain.items()}, mark, mark)
    return Node([as_node(item, mark) for item in plain] if isinstance(plain, list) else plain, mark, mark)


def _put(root: Node, keys: list[str], value: Node, mark: Mark, path: str) -> Node:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    content = root.value
    if isinstance(content, list):
        if not _INT.match(key) or not 0 <= int(key) <= len(content):
            remedy = f"use 0 to {len(content) - 1}, or {len(content)} to append" if content else "use 0 to append"
            raise ConfigError(f"{mark}: {path}: {quoted(key)} is no place in a list of {len(content)}; {remedy}")
        items = [*content, Node(None, mark, mark, implied=True)][: max(len(content), int(key) + 1)]
        items[int(key)] = _put(items[int(key)], rest, value, mark, path)
        return replace(root, value=items)
    if isinstance(content, str):
        content = {"name": Node(content, root.mark, root.key)}
    elif content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{mark}: {path}: {quoted(key)} would stand below {root.shown()}, which holds no keys; set the key above it")
    below = content.get(key, Node(None, mark, mark, implied=True))
    return replace(root, value={**content, key: _put(below, rest, value, mark, path)})


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested mappings of plain values differ, a phrase each."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for key in {**a, **b} for d in differences(a.get(key), b.get(key), f"{path}.{key}".strip("."))]
    return [] if a == b else [f"{path} is {_brief(a)} there and {_brief(b)} here"]


def _brief(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= QUOTE else quoted(value)


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(resolve(text), str) else "'"
    if not text.isprintable():
        style = '"'  # the only style that escapes instead of folding
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def to_yaml(value: Any, width: int = 110, one_line: bool = False) -> str:
    """YAML text that :func:`parse_yaml` reads back to the same value; ``one_line`` writes mappings in braces."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=one_line or None, width=math.inf if one_line else width, allow_unicode=True)
