"""What ``mfk components`` prints: kinds, components and sections with their settings, and the augmentation levels."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from metaflowkit.augment.levels import TABLES, level_operations
from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import REQUIRED, Entry, Setting, argument_docs
from metaflowkit.config.registry import KINDS
from metaflowkit.config.schema import describe, nearest
from metaflowkit.config.types import Augment, Evaluate, Inner, Learn, ModelNode, Outer, Pipeline, plain
from metaflowkit.config.yaml import to_yaml
from metaflowkit.errors import ConfigError
from metaflowkit.search.settings import Final, Limits, Settings

SECTIONS: dict[str, type] = {
    "pipeline": Pipeline, "augment": Augment, "model": ModelNode, "inner": Inner, "learn": Learn, "outer": Outer, "evaluate": Evaluate,
    "search": Settings, "limits": Limits, "final": Final,
}  # fmt: skip
NOT_IN_FILE = {"pipeline": ("name", "places")}


def describe_components(kind: str | None = None, name: str | None = None, plugins: Sequence[str] = ()) -> list[str]:
    """Lines about everything, one kind or section, or one component or key.

    Args:
        kind: of component, or a section of a pipeline or of a search file; None for all.
        name: of a component of that kind, or a key of that section; None for all of them.
        plugins: modules that register further components.

    Raises:
        ConfigError: there is no such kind or component, or no such module.
    """
    kinds = {each.name: each for each in KINDS.values()}
    if kind is None:
        sections = ["section", *(f"  {name:<28} {_summary(cls)}" for name, cls in SECTIONS.items()), ""]
        return [*sections, *(line for each in kinds.values() for line in (*_listing(each.name, each.entries(plugins)), "")), "level", *_levels()]
    if kind == "level":
        return _level(name)
    if kind in SECTIONS:
        return _section(kind, name)
    if kind not in kinds:
        raise ConfigError(f"components: there is no kind or section {kind!r}; {nearest(kind, [*kinds, *SECTIONS, 'level'])}")
    entries = kinds[kind].entries(plugins)
    if name is None:
        return _listing(kind, entries)
    if name not in entries:
        raise ConfigError(f"components: there is no {kind} {name!r}; {nearest(name, entries)}")
    return [f"{kind} {name}: {entries[name].summary}", *_settings(entries[name])]


def _listing(kind: str, entries: dict[str, Entry]) -> list[str]:
    return [kind, *(f"  {name:<28} {entry.summary}" for name, entry in entries.items())]


def _settings(entry: Entry) -> list[str]:
    if not entry.settings:
        return ["  takes no settings"]
    return [line for setting in entry.settings.values() for line in _lines(setting)]


def _lines(setting: Setting) -> list[str]:
    default = "required" if setting.default is REQUIRED else "default " + _yaml(setting.default)
    line = f"  {setting.name}: {describe(setting.annotation)}, {default}"
    return [line, f"      {setting.help}"] if setting.help else [line]


def _yaml(value: Any) -> str:
    return to_yaml(value).removesuffix("...\n").strip()


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _section(section: str, key: str | None) -> list[str]:
    """The keys of a mapping in a pipeline or search file, with types, defaults and what they mean."""
    cls = SECTIONS[section]
    if cls is Augment:
        return [f"augment: {_summary(cls)}", "  {level: 1 to 4}; see mfk components level", "  [operations]; see mfk components augmentation"]
    hints, helps = typing.get_type_hints(cls, include_extras=True), argument_docs(inspect.getdoc(cls) or "")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in NOT_IN_FILE.get(section, ())}
    if key is not None and key not in fields:
        raise ConfigError(f"components: the section {section!r} has no key {key!r}; {nearest(key, fields)}")
    lines = []
    for field in [fields[key]] if key is not None else fields.values():
        lines += [f"  {field.name}: {', '.join(filter(None, (_type(hints[field.name]), _default(field))))}", f"      {helps[field.name]}"]
    return [f"{section}: {_summary(cls)}", *lines]


def _type(hint: Any) -> str:
    """The type of a key; for a component or a section, where its help is."""
    if typing.get_origin(hint) is list and typing.get_origin(inside := typing.get_args(hint)[0]) is Annotated and typing.get_args(inside)[0] is Choice:
        return f"a list of components (see mfk components {typing.get_args(inside)[1].name})"
    if typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] in (Choice, Choice | None):
        kind = typing.get_args(hint)[1].name
        return f"a component (see mfk components {kind})"
    if typing.get_origin(hint) is dict and typing.get_args(hint)[1] is Learn:
        return "a mapping by setting (see mfk components learn)"
    section = next((name for name, cls in SECTIONS.items() if cls is hint), None)
    return f"a section (see mfk components {section})" if section else describe(hint)


def _default(field: dataclasses.Field[Any]) -> str:
    """The default of a key in words; empty for a section, whose keys have their own."""
    if "default" in field.metadata:
        return f"default {field.metadata['default']}"
    if field.default_factory is not dataclasses.MISSING:
        return f"default {_yaml(plain(field.default_factory()))}"
    if field.default is dataclasses.MISSING:
        return "required"
    if isinstance(field.default, Choice):
        return f"default {field.default.name}"
    if type(field.default) in SECTIONS.values() and not isinstance(field.default, Augment):
        return ""
    return f"default {_yaml(plain(field.default))}"


def _levels() -> list[str]:
    return [f"  {kind}{level:<2} {', '.join(op['name'] for op in level_operations(level, kind))}" for kind in TABLES for level in range(1, 5)]


def _level(name: str | None) -> list[str]:
    if name is None:
        return ["level", *_levels(), "print one for editing with 'mfk components level grey3'"]
    kind, level = name[:-1], name[-1:]
    if kind not in TABLES or level not in tuple("1234"):
        raise ConfigError(f"components: there is no level {name!r}; use {', '.join(f'{kind}1 to {kind}4' for kind in TABLES)}")
    return to_yaml({"augment": level_operations(int(level), kind)}).splitlines()
