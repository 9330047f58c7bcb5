"""What ``mfk components`` prints: kinds, components, settings with defaults, and the augmentation levels."""

from __future__ import annotations

from metaflowkit.augment.levels import level_operations
from metaflowkit.errors import ConfigError
from metaflowkit.files import to_yaml
from metaflowkit.registry import KINDS
from metaflowkit.schema import describe, nearest
from metaflowkit.signatures import REQUIRED, Entry


def describe_components(kind: str | None = None, name: str | None = None) -> list[str]:
    """Lines about everything, one kind, or one component.

    Raises:
        ConfigError: there is no such kind or component.
    """
    kinds = {known.name: known for known in KINDS.values()}
    if kind is None:
        return [*(line for known in kinds for line in (*_listing(known, kinds[known].entries()), "")), "level", *_levels()]
    if kind == "level":
        return _level(name)
    if kind not in kinds:
        raise ConfigError(f"components: there is no kind {kind!r}; {nearest(kind, [*kinds, 'level'])}")
    entries = kinds[kind].entries()
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
    lines = []
    for setting in entry.settings.values():
        default = "required" if setting.default is REQUIRED else "default " + to_yaml(setting.default).removesuffix("...\n").strip()
        lines.append(f"  {setting.name}: {describe(setting.annotation)}, {default}")
        lines += [f"      {setting.help}"] if setting.help else []
    return lines


def _levels() -> list[str]:
    return [
        f"  {color}{level:<2} {', '.join(op['name'] for op in level_operations(level, channels))}"
        for color, channels in (("grey", 1), ("color", 3))
        for level in range(1, 5)
    ]


def _level(name: str | None) -> list[str]:
    if name is None:
        return ["level", *_levels(), "print one for editing with 'mfk components level grey3'"]
    color, level = name[:-1], name[-1:]
    if color not in ("grey", "color") or level not in tuple("1234"):
        raise ConfigError(f"components: there is no level {name!r}; use grey1 to grey4 or color1 to color4")
    return to_yaml({"augment": level_operations(int(level), 1 if color == "grey" else 3)}).splitlines()
