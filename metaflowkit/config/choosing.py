"""A component's node in a YAML file against the registry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from metaflowkit.config import schema
from metaflowkit.config.choice import Choice
from metaflowkit.config.inspection import PLAIN
from metaflowkit.config.introspection import REQUIRED, Entry
from metaflowkit.config.registry import PYTHON, Kind
from metaflowkit.config.schema import Component, Mismatch, coerce, nearest
from metaflowkit.config.yaml import Node, as_node, put
from metaflowkit.errors import ConfigError, key_text


def choose(node: Node, kind: Kind, path: str, plugins: Sequence[str], problems: list[str]) -> Choice | None:
    """Check a component node (``{name: ..., settings...}`` or a bare name) against its kind.

    Args:
        node: the YAML node.
        kind: the kind of component that is expected.
        path: dotted path, for messages.
        plugins: modules that may register further components.
        problems: every problem found is appended here.

    Returns:
        The choice with defaults filled in, or None where there were problems.
    """
    if not isinstance(node.value, (*PLAIN, dict, list)):
        if (object_name := _object_name(node, kind, path, problems)) is None:
            return None
        node = Node(object_name, node.mark, node.key)
    entries = kind.entries(plugins)
    nodes = dict(node.value) if isinstance(node.value, dict) else {"name": node}
    name = nodes.pop("name", None)
    if name is None:
        problems.append(f"{node.mark}: {path}: has no name, got only settings; add 'name:', one of {', '.join(entries)}")
        return None
    if isinstance(name.value, str) and name.value.startswith(PYTHON) and name.value not in entries:
        problems.append(
            f"{name.mark}: {path}: there is no {kind.name} {name.shown()} in this process, since it was made from a Python object; "
            "make the pipeline again in Python (metaflowkit.pipeline), then load or resume the run in that process"
        )
        return None
    if not isinstance(name.value, str) or name.value not in entries:
        problems.append(f"{name.mark}: {path}: there is no {kind.name} {name.shown()}; {nearest(str(name.plain()), entries)}")
        return None
    entry = entries[name.value]
    before = len(problems)
    values: dict[str, Any] = {}
    for key, child in nodes.items():
        if key not in entry.settings:
            hint = nearest(key, entry.settings) if entry.settings else "it takes no settings"
            if kind.renamed.get(key) in entry.settings:
                hint = f"it is called {kind.renamed[key]} now"
            problems.append(f"{child.key or child.mark}: {path}.{key_text(key)}: {kind.name} {entry.name!r} has no such setting; {hint}")
            continue
        try:
            child = with_default(child, entry.settings[key].default, f"{path}.{key}")
            values[key] = _setting(child, entry.settings[key].annotation, kind, f"{path}.{key}", plugins, problems)
        except Mismatch as mismatch:
            problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
        except ConfigError as error:
            problems += error.problems
    for key, setting in entry.settings.items():
        if key not in nodes and setting.default is REQUIRED:
            problems.append(f"{node.mark}: {path}.{key}: is missing and has no default; add it ({schema.describe(setting.annotation)})")
    if len(problems) > before:
        return None
    foreign = entry.name in kind.foreign()
    settings = {key: values.get(key, s.default) for key, s in entry.settings.items() if key in values or not foreign}
    problems += _refused(entry, settings, nodes, node, path)
    return Choice(entry.name, settings) if len(problems) == before else None


def _setting(node: Node, annotation: Any, kind: Kind, path: str, plugins: Sequence[str], problems: list[str]) -> Any:
    """The value of a setting; a component, or a list of them, where the annotation asks for it."""
    if annotation == Component:
        return choose(node, kind, path, plugins, problems)
    if annotation == list[Component] and isinstance(node.value, list):
        return [choose(item, kind, f"{path}.{i}", plugins, problems) for i, item in enumerate(node.value)]
    return coerce(node, annotation, path)


def _refused(entry: Entry, settings: dict[str, Any], nodes: dict[str, Node], node: Node, path: str) -> list[str]:
    """The first refusal of the constructor, none where it accepts the settings."""
    for guard in entry.guards:
        if (refusal := guard.refusal(settings)) is not None:
            mark = next((nodes[key].mark for key in guard.names if key in nodes), node.mark)
            return [f"{mark}: {path}: {refusal}"]
    return []


def _object_name(node: Node, kind: Kind, path: str, problems: list[str]) -> str | None:
    """The name of an object from Python; None where it does not have the contract of its kind."""
    if inspect.isclass(node.value):
        problems.append(f"{node.mark}: {path}: must be an object, got the class {node.value.__name__}; write {node.value.__name__}(...)")
        return None
    name = kind.name_of(node.value)
    try:
        kind.checked(node.value, name)
    except ValueError as error:
        problems.append(f"{node.mark}: {path}: {error}")
        del kind.objects[name]
        return None
    return name


def with_default(node: Node, default: Any, path: str) -> Node:
    """The part of a component, list or mapping that an override gives, with the rest from the default.

    Args:
        node: at the default's key.
        default: of that key.
        path: of that key, for messages.

    Raises:
        ConfigError: the override leads past the end of a list.
    """
    if not node.implied or not isinstance(node.value, dict):
        return node
    if isinstance(default, Choice) and "name" not in node.value:
        return replace(node, value={"name": Node(default.name, node.mark, node.key), **node.value})
    if default is None and all(key.isdecimal() for key in node.value):
        default = []
    if isinstance(default, list):
        items = as_node([item.plain() if isinstance(item, Choice) else item for item in default], node.mark)
        for keys, value in _given(node, ()):
            items = put(items, ".".join(keys), value, path)
        return items
    return node


def _given(node: Node, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
    """The values of overrides below a node that is in no file, each with its path."""
    if not node.implied:
        yield keys, node
    else:
        for key, child in node.value.items():
            yield from _given(child, (*keys, key))
