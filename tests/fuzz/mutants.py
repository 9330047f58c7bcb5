"""Mutants of the shipped pipelines and searches: each is a pure function of its seed, so that one number replays it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
import shutil
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaflowkit.config import registry
from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.pipeline import read
from metaflowkit.config.schema import Component
from metaflowkit.config.types import Pipeline
from metaflowkit.config.yaml import read_yaml, to_yaml
from metaflowkit.errors import LINE, ConfigError
from metaflowkit.search.specification import read_search

ROOT = Path(__file__).parents[2]
FILES = [path.relative_to(ROOT) for folder in ("pipelines", "search") for path in sorted((ROOT / folder).glob("*.yaml"))]
CHARACTERS = [
    *"\0\x07\x1b\x7f\x85\xa0\u200b\u200f\u202a\u202e\u2028\u2066\u2069\ufeff\ud800\U000e0041\t\n\r\"'\\:#{}[]&*!|>%@`,-? ²١é",
    "\r\n",
    "\x1b[2J",
    "\\x1b",
    "\\UFFFFFFFF",
]
NUMBERS = [0, 1, -1, 2, 3, 37, 255, 256, 65_536, 10**6, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**18, 10**100, 10**299, 10**320, -(10**30), 0.0, -0.0, 0.5, 1.0, 1e-320, 1e-45,
           1e-30, 1e-8, 0.999, 1 - 1e-12, 1.5, 1e6, 1e12, 1e15, 1e38, 1e39, 1e300, float("inf"), float("-inf"), float("nan")]  # fmt: skip
TEXTS = [
    "",
    " ",
    "null",
    "true",
    "1e-3",
    "0x10",
    "x" * 5000,
    "a: b",
    "a\nb",
    "\x1b[31mred",
    "\u202eabc",
    "..",
    "../..",
    "/",
    "~",
    "%s{0}",
    "name",
    "auto",
    "cuda:99999999999999999999",
    "cpu",
    "os",
    "sys.path",
]
TEXTS += ["__main__", "metaflowkit.rules", "tests.nowhere", "0", "lr", "head.*", "[", "**", "é", "文" * 70]


def mutant(seed: int, folder: Path) -> tuple[Path, list[str]]:
    """Write the mutant of a seed below ``folder`` (laid out as the repository); its path and its overrides."""
    chance = random.Random(seed)
    source = chance.choice(FILES)
    path = folder / source.parent / "mutant.yaml"
    original = ROOT / source
    content = original.read_bytes()
    overrides: list[str] = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        way = chance.random()
        if way < 0.25:
            content = _text(content, chance)
        elif way < 0.5:
            content = _component(original, chance)
        elif way < 0.8:
            content = _tree(content, original, chance)
        else:
            overrides.append(_override(original, chance))
    path.write_bytes(content)
    return path, overrides


def lay_out(folder: Path) -> Path:
    """A folder with the shipped files, which the mutants of searches refer to."""
    for name in ("pipelines", "search"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def read_mutant(seed: int, folder: Path) -> Pipeline | None:
    """Read the mutant of a seed; None where it is refused as it should be.

    Raises:
        AssertionError: it is refused in a way that it should not be; every other exception is a fault as well.
    """
    path, overrides = mutant(seed, folder)
    try:
        return read_search(path, overrides).pipeline if path.parent.name == "search" else read(path, overrides)
    except ConfigError as error:
        assert error.problems, "no problem is named"
        for line in error.problems:
            assert line.isprintable(), f"a line is not printable: {line!r}"
            assert len(line) <= LINE + 100, f"a line has {len(line)} characters: {line[:200]!r}"
            assert line.startswith((str(folder), "--set ")), f"a line names no place: {line!r}"
            assert ": " in line, line
        return None


def _text(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b"\n"]
    i = chance.randrange(len(lines))
    at = chance.randrange(len(content) + 1)
    character = chance.choice(CHARACTERS).encode("utf-8", "surrogatepass")
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + character + content[at:],
        lambda: content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + content[at + chance.randrange(20) :],
        lambda: b"".join(lines[:i] + lines[i + 1 :]),
        lambda: b"".join(lines[:i] + [lines[i]] * 2 + lines[i + 1 :]),
        lambda: b"".join(lines[:i] + [b" " * chance.randrange(1, 5) + lines[i]] + lines[i + 1 :]),
        lambda: b"".join(chance.sample(lines, len(lines))),
        lambda: content + b"\n? [1, 2]\n: x\n",
        lambda: content[:at] + b"&a [*a]" + content[at:],
        lambda: content[:at] + chance.choice([b"[", b"{a: "]) * chance.choice([3, 100, 400, 3000]) + content[at:],
        lambda: content + b"\nseed: !!python/object/apply:os.getcwd []\n",
    ]
    return chance.choice(ways)()


@functools.cache
def _read(path: Path) -> Any:
    return read_yaml(path).plain()


def _plain(path: Path) -> Any:
    return copy.deepcopy(_read(path))


@functools.cache
def _names() -> list[list[str]]:
    return [[*kind.entries()] for kind in registry.KINDS.values()]


@functools.cache
def _settings() -> list[str]:
    return [setting for kind in registry.KINDS.values() for entry in kind.entries().values() for setting in entry.settings]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [place for key, item in items for place in ((value, key), *_places(item))]


def _value(chance: random.Random, original: Path) -> Any:
    nested: Any = chance.choice(NUMBERS)
    for _ in range(chance.choice([1, 2, 49, 60, 300])):
        nested = [nested] if chance.random() < 0.5 else {chance.choice(["a", "name", "x: y"]): nested}
    other = _plain(ROOT / chance.choice(FILES))
    names = chance.choice(_names())
    ways = [chance.choice(NUMBERS)] * 6 + [chance.choice(TEXTS)] * 3 + [chance.choice(names)] * 4 + [{"name": chance.choice(names)}] * 3
    ways += [None, True, False, [], {}, [[]], [chance.choice(NUMBERS), chance.choice(TEXTS)], {chance.choice(TEXTS): chance.choice(NUMBERS)}, nested]
    ways += [container[key] for container, key in [chance.choice(_places(other))]]
    return chance.choice(ways)


def _key(chance: random.Random) -> str:
    fields = [
        field.name
        for node in (Pipeline, *(type(getattr(Pipeline, name)) for name in ("inner", "outer", "evaluate", "model")))
        for field in dataclasses.fields(node)
    ]
    return chance.choice(
        [chance.choice(_settings()), chance.choice(fields), chance.choice(TEXTS), chance.choice(CHARACTERS) + chance.choice(fields), "k" * 300]
    )


def _tree(content: bytes, original: Path, chance: random.Random) -> bytes:
    tree = _plain(original)
    for _ in range(chance.choice([1, 1, 2])):
        container, key = chance.choice(_places(tree))
        way = chance.random()
        if way < 0.6 or isinstance(container, list):
            container[key] = _value(chance, original)
        elif way < 0.7:
            del container[key]
        elif way < 0.8:
            container[_key(chance)] = container.pop(key)
        else:
            container[_key(chance)] = _value(chance, original)
    try:
        return to_yaml(tree).encode("utf-8", "surrogatepass")
    except RecursionError:  # a value too deep to be written
        return content


def _component(original: Path, chance: random.Random) -> bytes:
    """A file in which one component is another of its kind, with some of its settings at values of the right sort."""
    tree = _plain(original)
    pipeline = tree if "dataset" in tree else tree.setdefault("set", {})
    paths = {"tasks": registry.TASKS, "model.backbone": registry.BACKBONES, "model.head": registry.HEADS, "inner.rule": registry.RULES, "inner.loss": registry.LOSSES,
             "inner.engine": registry.ENGINES, "inner.order": registry.ORDERS, "objective": registry.OBJECTIVES, "outer.optimizer": registry.OPTIMIZERS}  # fmt: skip
    path = chance.choice([*paths])
    entry = chance.choice([*paths[path].entries().values()])
    node: dict[str, Any] = {"name": entry.name}
    for setting in entry.settings.values():
        if chance.random() < 0.4 or setting.default is REQUIRED:
            node[setting.name] = _fitting(setting.annotation, chance)
    if pipeline is not tree:
        pipeline[path] = node
    else:
        *above, last = path.split(".")
        inside = tree.setdefault(above[0], {}) if above else tree
        inside[last] = node
    return to_yaml(tree).encode("utf-8", "surrogatepass")


def _fitting(annotation: Any, chance: random.Random) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return chance.choice(args)
    if annotation == Component:
        return chance.choice(["query_loss", {"name": "bootstrapped_kl", "delta": chance.choice(NUMBERS)}, {"name": "weighted_sum", "terms": ["nt_xent"]}])
    if origin is typing.Annotated:
        fitting = [n for n in NUMBERS if (args[0] is float or type(n) is int) and args[1].holds(n) and abs(n) <= 10**12]
        return chance.choice(fitting)
    if origin in (types.UnionType, typing.Union):
        return _fitting(chance.choice(args), chance)
    if origin is list:
        return [_fitting(args[0], chance) for _ in range(chance.randrange(3))]
    if origin is dict:
        return {chance.choice(["train", "lr", "momentum", "x"]): _fitting(args[1], chance) for _ in range(chance.randrange(2))}
    return {bool: chance.choice([True, False]), str: chance.choice(TEXTS)}.get(annotation, chance.choice(NUMBERS) if annotation in (int, float) else None)


def _override(original: Path, chance: random.Random) -> str:
    tree = _plain(original)
    places = [".".join(map(str, path)) for path in _paths(tree)]
    path = chance.choice(
        [
            chance.choice(places),
            f"{chance.choice(places)}.{_key(chance)}",
            f"inner.{_key(chance)}",
            _key(chance),
            ".".join("a" * chance.choice([30, 300, 3000])),
        ]
    )
    value = _value(chance, original)
    text = to_yaml(value, width=10**9).removesuffix("...\n").strip() if chance.random() < 0.8 else chance.choice(TEXTS + CHARACTERS)
    return f"{path}={text}" if chance.random() < 0.95 else path


def _paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [path for key, item in items for path in ((*above, key), *_paths(item, (*above, key)))]


def small(pipeline: Pipeline) -> Pipeline:
    """The same components with sizes that a second suffices for, on images made up in memory; relations between sizes are kept."""

    def cut(settings: dict[str, Any], **most: int) -> dict[str, Any]:
        return {key: min(value, most[key]) if key in most and isinstance(value, int) else value for key, value in settings.items()}

    def chosen(choice: Choice, **most: int) -> Choice:
        return Choice(choice.name, cut(choice.settings, **most))

    def each(value: int | list[int], most: int) -> Any:
        return [min(v, most) for v in value] if isinstance(value, list) else min(value, most)

    given = pipeline.dataset
    colour = given is not None and (given.settings.get("mode") == "color" or given.name == "torchvision")
    backbone = chosen(pipeline.model.backbone, width=4)
    if "widths" in backbone.settings:
        backbone = Choice(backbone.name, {**backbone.settings, "widths": [min(width, 8) for width in backbone.settings["widths"][:4]]})
    if backbone.name == "resnet18":
        backbone = Choice("resnet12", {**backbone.settings, "width": 4})
    inner, asked = pipeline.inner, pipeline.evaluate
    steps = min(inner.steps, 3)
    return dataclasses.replace(
        pipeline,
        device="cpu",
        dataset=None if given is None else Choice("made-up", {"channels": 3 if colour else 1}),
        tasks=chosen(pipeline.tasks, way=3, shot=2, query=2, meta_batch=2, horizon=3),
        model=dataclasses.replace(pipeline.model, backbone=backbone),
        inner=dataclasses.replace(inner, steps=steps, order=chosen(inner.order, last=max(steps, 1), iterations=3), engine=chosen(inner.engine, workers=2)),
        objective=chosen(pipeline.objective, delta=3),
        outer=dataclasses.replace(pipeline.outer, steps=1),
        evaluate=dataclasses.replace(
            asked, every=1, way=each(asked.way, 3), shot=each(asked.shot, 2), steps=None if asked.steps is None else [min(count, 3) for count in asked.steps], query=min(asked.query, 2), episodes=2, val_episodes=2,
            views=None if asked.views is None else min(asked.views, 2),
        ),
    )  # fmt: skip
