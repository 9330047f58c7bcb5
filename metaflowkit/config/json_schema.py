"""JSON Schema of pipelines and search files, by which editors complete keys, show what they mean and underline mistakes.

It says what each value must look like. What depends on several values together, such as a head that does not fit the loss, only ``mfk check`` finds: every
valid file satisfies the schema, and a file that satisfies it may still be refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import REQUIRED, Entry, Setting, argument_docs
from metaflowkit.config.registry import AUGMENTATIONS, KINDS, Kind
from metaflowkit.config.schema import Component, Level, Range
from metaflowkit.config.types import Augment, Learn, Per, Pipeline, plain
from metaflowkit.search.settings import Settings

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"  # what the YAML extensions of editors read
_SIMPLE = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null", None: "null"}


def json_schema(plugins: Sequence[str] = ()) -> Schema:
    """The schema (draft 7) of pipelines and search files; a file with ``space`` is a search.

    Args:
        plugins: modules whose components it knows besides the built-in ones.

    Raises:
        ConfigError: there is no such module.
    """
    definitions = {"pipeline": _section(Pipeline, leave_out=("name", "places")), "search": _section(Settings)}
    definitions["search"]["properties"]["pipeline"]["anyOf"] = [{"type": "string"}, {"$ref": "#/definitions/pipeline"}]
    definitions |= {_key(kind): _kind(kind, plugins) for kind in KINDS.values()}
    return {
        "$schema": DRAFT,
        "title": "metaflowkit pipeline or search",
        "if": {"required": ["space"]},
        "then": {"$ref": "#/definitions/search"},
        "else": {"$ref": "#/definitions/pipeline"},
        "definitions": definitions,
    }


def _section(cls: type, leave_out: Sequence[str] = ()) -> Schema:
    """A mapping whose keys are the fields of a dataclass."""
    hints, helps = typing.get_type_hints(cls, include_extras=True), argument_docs(inspect.getdoc(cls) or "")
    properties, required = {}, []
    for f in dataclasses.fields(cls):
        if f.name in leave_out:
            continue
        properties[f.name] = {**_of(hints[f.name]), "description": helps[f.name]}
        if f.default_factory is not dataclasses.MISSING:
            properties[f.name]["default"] = plain(f.default_factory())
        elif f.default is not dataclasses.MISSING:
            properties[f.name]["default"] = f.default.name if isinstance(f.default, Choice) else plain(f.default)
        elif "default" not in f.metadata:
            required.append(f.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _kind(kind: Kind, plugins: Sequence[str]) -> Schema:
    """A component of a kind: its bare name, or a mapping with its name and settings."""
    entries = kind.entries(plugins)
    bare = [name for name, entry in entries.items() if all(setting.default is not REQUIRED for setting in entry.settings.values())]
    return {"anyOf": [{"enum": bare}, *(_component(entry, kind) for entry in entries.values())]}


def _component(entry: Entry, kind: Kind) -> Schema:
    properties = {"name": {"const": entry.name, "description": entry.summary}, **{s.name: _setting(s, kind) for s in entry.settings.values()}}
    required = ["name", *(s.name for s in entry.settings.values() if s.default is REQUIRED)]
    return {"type": "object", "title": entry.name, "description": entry.summary, "properties": properties, "required": required, "additionalProperties": False}


def _setting(setting: Setting, kind: Kind) -> Schema:
    schema = {**_of(setting.annotation, kind), **({"description": setting.help} if setting.help else {})}
    if setting.default is REQUIRED or (isinstance(setting.default, float) and not math.isfinite(setting.default)):
        return schema
    return {**schema, "default": plain(list(setting.default) if isinstance(setting.default, tuple) else setting.default)}


def _of(annotation: Any, kind: Kind | None = None) -> Schema:
    """What an annotation allows; ``kind`` is that of the component whose setting it is."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return {}
    if annotation is Augment:
        level = {"type": "object", "properties": {"level": _of(Level)}, "required": ["level"], "additionalProperties": False}
        return {"anyOf": [level, {"type": "array", "items": {"$ref": f"#/definitions/{_key(AUGMENTATIONS)}"}}]}
    if annotation is Learn:
        return {"anyOf": [_of(Per), _section(Learn)]}
    if dataclasses.is_dataclass(annotation):
        return _section(typing.cast(type, annotation))
    if annotation == Component:
        assert kind is not None
        return {"$ref": f"#/definitions/{_key(kind)}"}
    if origin is Annotated:
        if isinstance(args[1], Kind):
            reference = {"$ref": f"#/definitions/{_key(args[1])}"}
            return {"anyOf": [reference]} if args[0] is Choice else {"anyOf": [reference, {"type": "null"}]}
        return {**_of(args[0]), **_bounds(args[1])}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (types.UnionType, Union):
        return {"anyOf": [_of(arg, kind) for arg in args]}
    if origin is list:
        return {"type": "array", "items": _of(args[0], kind)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(args[1], kind)}
    return {"type": _SIMPLE[annotation]}


def _bounds(bounds: Range) -> Schema:
    high = min(bounds.high, bounds.most)
    return {
        "exclusiveMinimum" if bounds.above else "minimum": bounds.low,
        **({} if high == math.inf else {"exclusiveMaximum" if bounds.below else "maximum": high}),
    }


def _key(kind: Kind) -> str:
    return kind.name.replace(" ", "_")
