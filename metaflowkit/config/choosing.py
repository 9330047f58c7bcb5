"""A component's node in a YAML file against the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaflowkit.config import schema
from metaflowkit.config.inspection import PLAIN
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.registry import Choice, Kind
from metaflowkit.config.schema import Mismatch, coerce, nearest
from metaflowkit.config.yaml import Node
from metaflowkit.errors import key_text


def choose(node: Node, kind: Kind, path: str, plugins: Sequence[str], problems: list[str]) -> Choice | None:
    """Check a component node (``{name: ..., settings...}`` or a bare name) against its kind.

    Args:
        node: the YAML node.
        kind: what sort of component is wanted here.
        path: dotted path, for messages.
        plugins: modules that may register further components.
        problems: every problem found is appended here.

    Returns:
        The choice with defaults filled in, or None where there were problems.
    """
    if not isinstance(node.value, (*PLAIN, dict, list)):
        node = Node(kind.name_of(node.value), node.mark, node.key)
    entries = kind.entries(plugins)
    nodes = dict(node.value) if isinstance(node.value, dict) else {"name": node}
    named = nodes.pop("name", None)
    if named is None:
        problems.append(f"{node.mark}: {path}: has no name, got only settings; add 'name:', one of {', '.join(entries)}")
        return None
    if not isinstance(named.value, str) or named.value not in entries:
        problems.append(f"{named.mark}: {path}: there is no {kind.name} {named.shown()}; {nearest(str(named.plain()), entries)}")
        return None
    entry = entries[named.value]
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
            values[key] = coerce(child, entry.settings[key].annotation, f"{path}.{key}")
        except Mismatch as mismatch:
            problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
    for key, setting in entry.settings.items():
        if key not in nodes and setting.default is REQUIRED:
            problems.append(f"{node.mark}: {path}.{key}: is missing and has no default; add it ({schema.describe(setting.annotation)})")
    if len(problems) > before:
        return None
    foreign = entry.name in kind.foreign()
    settings = {key: values.get(key, s.default) for key, s in entry.settings.items() if key in values or not foreign}
    for guard in entry.guards:
        refusal = guard.refusal(settings)
        if refusal is not None:
            place = next((nodes[key].mark for key in guard.names if key in nodes), node.mark)
            problems.append(f"{place}: {path}: {refusal}")
    return Choice(entry.name, settings) if len(problems) == before else None
