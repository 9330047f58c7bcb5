"""The pipeline as a value: one field per YAML key in data-flow order, read and checked without torch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from metaflowkit import registry as r
from metaflowkit.errors import ConfigError
from metaflowkit.files import Node, apply_overrides, read_yaml, to_yaml
from metaflowkit.registry import Choice, Kind, choose
from metaflowkit.schema import Count, Mismatch, Natural, Positive, Range, coerce, nearest
from metaflowkit.signatures import locate

Level = Annotated[int, Range(1, 4)]
Readout = Literal["prototype", "adapted", "logistic"]


@dataclass(frozen=True)
class Augment:
    """Either a level of the presets or a list of operations (an empty list leaves images as they are)."""

    level: Level | None = None
    operations: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class ModelNode:
    """What is learned: backbone and head."""

    backbone: Annotated[Choice, r.BACKBONES] = Choice("conv4")
    head: Annotated[Choice, r.HEADS] = Choice("prototype")


@dataclass(frozen=True)
class Inner:
    """How the model adapts to a task."""

    rule: Annotated[Choice, r.RULES] = Choice("sgd")
    loss: Annotated[Choice, r.LOSSES] = Choice("contrastive")
    steps: Natural = 3
    engine: Annotated[Choice, r.ENGINES] = Choice("auto")
    order: Literal["exact", "first"] = "exact"


@dataclass(frozen=True)
class Outer:
    """How the initialisation is improved; ``save_every`` null saves whenever it validates."""

    optimizer: Annotated[Choice, r.OPTIMIZERS] = Choice("adam")
    steps: Count = 1000
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: Positive | None = 10.0
    save_every: Count | None = None


@dataclass(frozen=True)
class Evaluate:
    """What is measured.

    Where ``way`` and ``shot`` are both lists they go in pairs: ``way: [5, 20], shot: [5, 1]`` is 5-way 5-shot and 20-way 1-shot.
    ``views`` is the number of augmented copies of each support image that the ``adapted`` readout adapts on; 0 is the images
    themselves, null as many as ``tasks.shot`` for self-supervised tasks and 0 for labelled ones. Validation uses the first
    way, shot and readout.
    """

    every: Count = 100
    way: Count | list[Count] = 5
    shot: Count | list[Count] = 1
    query: Count = 15
    episodes: Annotated[int, Range(2)] = 600
    val_episodes: Annotated[int, Range(2)] = 200
    readouts: list[Readout] = field(default_factory=lambda: ["prototype", "adapted"])
    views: Natural | None = None
    seed: Natural = 0

    def settings(self) -> list[tuple[int, int]]:
        """Every (way, shot) to be measured, once."""
        ways, shots = _listed(self.way), _listed(self.shot)
        if len(ways) == 1 or len(shots) == 1:
            return list(dict.fromkeys((way, shot) for way in ways for shot in shots))
        return list(dict.fromkeys(zip(ways, shots)))


@dataclass(frozen=True)
class Pipeline:
    """A whole run, every default written out."""

    name: str
    dataset: Annotated[Choice, r.DATASETS]
    tasks: Annotated[Choice, r.TASKS] = Choice("views")
    seed: Natural = 0
    device: str = "auto"
    plugins: list[str] = field(default_factory=list)
    augment: Augment = Augment(level=3)
    model: ModelNode = ModelNode()
    inner: Inner = Inner()
    objective: Annotated[Choice, r.OBJECTIVES] = Choice("bootstrapped_kl")
    outer: Outer = Outer()
    evaluate: Evaluate = Evaluate()

    def plain(self) -> dict[str, Any]:
        """The YAML mapping of the whole pipeline, in data-flow order."""
        return {key: _plain(getattr(self, key)) for key in KEYS}

    def to_yaml(self) -> str:
        """The resolved pipeline as YAML, which reads back to an equal pipeline."""
        return to_yaml(self.plain())


KEYS = ("seed", "device", "plugins", "dataset", "augment", "tasks", "model", "inner", "objective", "outer", "evaluate")


def read(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and check a pipeline.

    Args:
        path: the YAML file.
        overrides: ``path.to.key=value`` each, applied in order.

    Returns:
        The pipeline with every default written out.

    Raises:
        ConfigError: with every problem found, each with its place, what is wrong and what to do.
    """
    root = apply_overrides(read_yaml(path), overrides)
    problems: list[str] = []
    plugins = _plugins(root, problems)
    pipeline = _section(root, Pipeline, "", plugins, problems, name=Path(path).stem)
    if not problems:
        problems = _cross_checks(pipeline, root, plugins)
    if problems:
        raise ConfigError(problems)
    return pipeline  # type: ignore[no-any-return]


def _plugins(root: Node, problems: list[str]) -> list[str]:
    node = root.value.get("plugins")
    try:
        names = coerce(node, list[str], "plugins") if node is not None else []
        for name in names:
            locate(name)
        return list(names)
    except Mismatch as mismatch:
        problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
    except ConfigError as error:
        problems.append(f"{node.mark}: {error}")
    return []


def _section(node: Node, cls: type, path: str, plugins: Sequence[str], problems: list[str], **given: Any) -> Any:
    """Check one mapping against a dataclass; None where there were problems."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}
    if not isinstance(node.value, dict):
        problems.append(f"{node.mark}: {path}: must be a mapping with {', '.join(fields)}, got {node.shown()}; write 'key: value' lines below it")
        return None
    before = len(problems)
    values = dict(given)
    for key, child in node.value.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            problems.append(f"{child.key or child.mark}: {where}: is no known key; {nearest(key, fields)}")
            continue
        values[key] = _value(child, hints[key], where, plugins, problems)
    for key, f in fields.items():
        if key in values:
            continue
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            problems.append(f"{node.mark}: {path + '.' if path else ''}{key}: is missing and has no default; add it")
        elif isinstance(f.default, Choice):
            values[key] = choose(Node(f.default.name, node.mark), _kind(hints[key]), f"{path}.{key}".strip("."), plugins, problems)
        elif dataclasses.is_dataclass(hints[key]) and hints[key] is not Augment:
            values[key] = _section(Node({}, node.mark), hints[key], key, plugins, problems)
    return cls(**values) if len(problems) == before else None


def _value(node: Node, hint: Any, path: str, plugins: Sequence[str], problems: list[str]) -> Any:
    if hint is Augment:
        return _augment(node, path, problems)
    if dataclasses.is_dataclass(hint):
        return _section(node, hint, path, plugins, problems)  # type: ignore[arg-type]
    if _is_choice(hint):
        return choose(node, _kind(hint), path, plugins, problems)
    try:
        return coerce(node, hint, path)
    except Mismatch as mismatch:
        problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
        return None


def _augment(node: Node, path: str, problems: list[str]) -> Augment | None:
    if isinstance(node.value, dict):
        if set(node.value) == {"level"}:
            return Augment(level=_value(node.value["level"], Level, f"{path}.level", (), problems))
        wrong = next((key for key in node.value if key != "level"), "level")
        child = node.value.get(wrong)
        problems.append(f"{(child.key if child else None) or node.mark}: {path}.{wrong}: is no known key; write {{level: 1 to 4}} or a list of operations")
        return None
    if isinstance(node.value, list):
        chosen = [choose(item, r.AUGMENTATIONS, f"{path}.{i}", (), problems) for i, item in enumerate(node.value)]
        return Augment(operations=tuple(c for c in chosen if c is not None))
    problems.append(f"{node.mark}: {path}: must be {{level: 1 to 4}} or a list of operations, got {node.shown()}; write augment: {{level: 3}}")
    return None


def _cross_checks(pipeline: Pipeline, root: Node, plugins: Sequence[str]) -> list[str]:
    """Problems between keys that are right each by itself."""
    problems = []
    ways, shots = _listed(pipeline.evaluate.way), _listed(pipeline.evaluate.shot)
    if 1 != len(ways) != len(shots) != 1 or not ways or not shots:
        problems.append(
            f"{_mark(root, 'evaluate', 'shot')}: evaluate.shot: must pair with evaluate.way, got {len(ways)} ways and {len(shots)} shots; give both the same length, or one number"
        )
        return problems

    def traits(kind: Kind, choice: Choice) -> dict[str, Any]:
        return kind.entries(plugins)[choice.name].traits

    needs_pairs = pipeline.inner.steps > 0 and traits(r.LOSSES, pipeline.inner.loss).get("needs_pairs", False)
    shot = pipeline.tasks.settings.get("shot")
    loss = pipeline.inner.loss.name
    if needs_pairs and shot == 1:
        problems.append(
            f"{_mark(root, 'tasks', 'shot')}: tasks.shot: must be at least 2, since the loss {loss!r} compares members of a class, got 1; raise it or choose inner.loss: cross_entropy"
        )
    if "adapted" in pipeline.evaluate.readouts:
        way = pipeline.tasks.settings.get("way")
        if traits(r.HEADS, pipeline.model.head).get("fixed_way") and any(w != way for w, _ in pipeline.evaluate.settings()):
            problems.append(
                f"{_mark(root, 'evaluate', 'way')}: evaluate.way: must be {way} as in training, since the head {pipeline.model.head.name!r} has a row per class, got {pipeline.evaluate.way}; set it, or leave 'adapted' out of evaluate.readouts"
            )
        if needs_pairs and 1 in _listed(pipeline.evaluate.shot) and evaluation_views(pipeline, plugins) < 2:
            problems.append(
                f"{_mark(root, 'evaluate', 'views')}: evaluate.views: must be at least 2, since the loss {loss!r} compares members of a class and one shot has one, got {evaluation_views(pipeline, plugins)}; set it to 2 or more"
            )
    if not (pipeline.device in ("auto", "cpu", "cuda") or (pipeline.device.startswith("cuda:") and pipeline.device[5:].isdigit())):
        problems.append(
            f"{_mark(root, 'device')}: device: must be auto, cpu, cuda or cuda:N, got {pipeline.device!r}; {nearest(pipeline.device, ['auto', 'cpu', 'cuda'])}"
        )
    return problems


def evaluation_views(pipeline: Pipeline, plugins: Sequence[str] | None = None) -> int:
    """How many augmented copies of each support image the ``adapted`` readout adapts on; see :class:`Evaluate`."""
    if pipeline.evaluate.views is not None:
        return pipeline.evaluate.views
    entry = r.TASKS.entries(pipeline.plugins if plugins is None else plugins)[pipeline.tasks.name]
    return 0 if entry.traits.get("reads_labels") else int(pipeline.tasks.settings.get("shot", 1))


def _mark(root: Node, *keys: str) -> Any:
    node = root
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            break
        node = node.value[key]
    return node.mark


def _is_choice(hint: Any) -> bool:
    return typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] is Choice


def _kind(hint: Any) -> Kind:
    return typing.get_args(hint)[1]  # type: ignore[no-any-return]


def _listed(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, Augment):
        return {"level": value.level} if value.level is not None else [c.plain() for c in value.operations]
    if isinstance(value, Choice):
        return value.plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
