"""Reading a pipeline: a YAML file and overrides to a checked value, without torch."""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from metaflowkit.config import registry as r
from metaflowkit.config.checks import cross_checks
from metaflowkit.config.choice import Choice
from metaflowkit.config.choosing import choose, with_default
from metaflowkit.config.plugin_refusals import refusals
from metaflowkit.config.plugins import import_plugin
from metaflowkit.config.registry import Kind
from metaflowkit.config.schema import Level, Mismatch, coerce, nearest
from metaflowkit.config.types import Augment, Learn, Pipeline
from metaflowkit.config.yaml import Mark, Node, apply_overrides, as_node, read_yaml
from metaflowkit.errors import ConfigError, key_text, quoted


def read(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and check a pipeline.

    Args:
        path: the YAML file.
        overrides: ``path.to.key=value`` each, applied in order.

    Returns:
        The pipeline with every default written out.

    Raises:
        ConfigError: with every problem found, each with its location, what is wrong and what to do.
    """
    root = read_yaml(path)
    if is_search(root):
        raise ConfigError(f"{path}: is a search file, not a pipeline; start it with mfk search {shlex.quote(str(path))}")
    return read_node(apply_overrides(root, overrides), Path(path).stem)


def pipeline_of(settings: Mapping[str, Any], overrides: Sequence[str] = (), name: str = "python") -> Pipeline:
    """A pipeline from Python: the mapping that a YAML file would hold.

    In place of a component's name an object may be given: a data set with ``load()``, a backbone or head that is a module (each
    build trains a copy of it), a rule, loss, objective, order, engine or task sampler. The run directory of such a pipeline names
    them, and can be resumed and loaded in a process that has built the pipeline again.

    Args:
        settings: keys as in a pipeline file.
        overrides: ``path.to.key=value`` each, applied in order.
        name: of the pipeline.

    Raises:
        ConfigError: with every problem found.

    Example:
        >>> import metaflowkit as mfk
        >>> mfk.pipeline({"dataset": "glyphs", "inner": {"steps": 2, "rule": mfk.rules.SGD(lr=0.3)}}).inner.rule.name
        'python.SGD'
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{name}: must be a mapping of keys to values, got {quoted(settings)}; write such as {{'dataset': 'glyphs'}}")
    return read_node(apply_overrides(as_node(dict(settings), Mark(name)), overrides), name)


def is_search(root: Node) -> bool:
    """Whether a mapping is a search over a pipeline: it has ``pipeline`` and ``space``, or one of them and no data set of its own."""
    keys = {"pipeline", "space"} & set(root.value)
    return len(keys) == 2 or (len(keys) == 1 and "dataset" not in root.value)


def read_node(root: Node, name: str) -> Pipeline:
    """The pipeline of this name that a mapping stands for; see :func:`read`."""
    problems: list[str] = []
    plugins = _plugins(root, problems)
    pipeline = section(root, Pipeline, "", plugins, problems, name=name)
    if root.value.get("dataset", Node(None, root.mark)).value is None and _reads_data(root, plugins):
        problems.append(f"{root.mark}: dataset: is missing and has no default; add it")
    if not problems:
        pipeline = dataclasses.replace(resolved(pipeline, plugins), places=dict(_places(root, "")))
        problems = [*cross_checks(pipeline, root, plugins), *refusals(pipeline)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))  # the plugins are read twice
    return pipeline  # type: ignore[no-any-return]


def _reads_data(root: Node, plugins: Sequence[str]) -> bool:
    """Whether the tasks of a mapping are made of a data set."""
    node = root.value.get("tasks")
    name_node = node.value.get("name") if node is not None and isinstance(node.value, dict) else node
    if name_node is not None and not isinstance(name_node.value, str):  # an object from Python, or a mistake that is told elsewhere
        return bool(getattr(name_node.value, "reads_data", r.TASKS.tags["reads_data"]))
    entry = r.TASKS.entries(plugins).get(Pipeline.tasks.name if name_node is None else name_node.value)
    return entry is None or bool(entry.tags["reads_data"])


def resolved(pipeline: Pipeline, plugins: Sequence[str]) -> Pipeline:
    """The pipeline with the defaults that follow from its tasks."""
    evaluate, tasks = pipeline.evaluate, pipeline.tasks
    if not r.TASKS.entries(plugins)[tasks.name].tags["measured"]:
        return dataclasses.replace(pipeline, evaluate=dataclasses.replace(evaluate, shot=1 if evaluate.shot is None else evaluate.shot))
    shot = int(tasks.settings.get("shot", 1)) if evaluate.shot is None else evaluate.shot
    steps = sorted({0, pipeline.inner.steps}) if evaluate.steps is None else evaluate.steps
    augment = Augment() if pipeline.augment == Pipeline.augment else pipeline.augment
    return dataclasses.replace(pipeline, augment=augment, evaluate=dataclasses.replace(evaluate, shot=shot, steps=steps))


def plugins_of(path: str | Path) -> list[str]:
    """The modules that a pipeline file names as its plugins.

    Raises:
        ConfigError: the file cannot be read, or there is no such module.
    """
    return plugins_in(read_yaml(path))


def plugins_in(root: Node) -> list[str]:
    """The modules that a pipeline names as its plugins, imported.

    Raises:
        ConfigError: one cannot be imported.
    """
    problems: list[str] = []
    names = _plugins(root, problems)
    if problems:
        raise ConfigError(problems)
    return names


def _places(node: Node, path: str) -> Iterator[tuple[str, str]]:
    """The location of every key, by its dotted path."""
    if path:
        yield path, str(node.key or node.mark)
    children = node.value.items() if isinstance(node.value, dict) else enumerate(node.value) if isinstance(node.value, list) else ()
    for key, child in children:
        yield from _places(child, f"{path}.{key}" if path else str(key))


def _plugins(root: Node, problems: list[str]) -> list[str]:
    node = root.value.get("plugins")
    if node is None:
        return []
    try:
        names: list[str] = coerce(with_default(node, [], "plugins"), list[str], "plugins")
    except Mismatch as mismatch:
        problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
        return []
    except ConfigError as error:
        problems += error.problems
        return []
    try:
        for name in names:
            import_plugin(name)
    except ConfigError as error:
        problems.append(f"{node.mark}: {error}")
        return []
    return names


def section(node: Node, cls: type, path: str, plugins: Sequence[str], problems: list[str], **preset: Any) -> Any:
    """Check one mapping against a dataclass.

    Args:
        node: the mapping.
        cls: its fields are the keys, their types the schema; ``preset`` ones cannot be written.
        path: where the mapping stands.
        plugins: modules that may register further components.
        problems: every problem found is appended here.

    Returns:
        An instance with defaults filled in, or None where there were problems.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in preset and f.name != "places"}
    if not isinstance(node.value, dict):
        problems.append(f"{node.mark}: {path}: must be a mapping with {', '.join(fields)}, got {node.shown()}; write 'key: value' lines below it")
        return None
    before = len(problems)
    values = dict(preset)
    for key, child in node.value.items():
        where = f"{path}.{key_text(key)}" if path else key_text(key)
        if key not in fields:
            problems.append(f"{child.key or child.mark}: {where}: is no known key; {nearest(key, fields)}")
            continue
        try:
            values[key] = _value(with_default(child, _default(fields[key]), where), hints[key], where, plugins, problems)
        except ConfigError as error:
            problems += error.problems
    for key, f in fields.items():
        if key in values:
            continue
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            problems.append(f"{node.mark}: {path + '.' if path else ''}{key}: is missing and has no default; add it")
        elif isinstance(f.default, Choice):
            values[key] = choose(Node(f.default.name, node.mark), _kind(hints[key]), f"{path}.{key}".strip("."), plugins, problems)
        elif dataclasses.is_dataclass(hints[key]) and hints[key] is not Augment:
            values[key] = section(Node({}, node.mark), hints[key], key, plugins, problems)
    return cls(**values) if len(problems) == before else None


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _value(node: Node, hint: Any, path: str, plugins: Sequence[str], problems: list[str]) -> Any:
    if hint is Augment:
        return _augment(node, path, plugins, problems)
    if dataclasses.is_dataclass(hint):
        return section(node, hint, path, plugins, problems)  # type: ignore[arg-type]
    if typing.get_origin(hint) is dict and typing.get_args(hint)[1] is Learn:
        return _learn(node, path, plugins, problems)
    if typing.get_origin(hint) is list and _is_choice(typing.get_args(hint)[0]):
        return _choices(node, _kind(typing.get_args(hint)[0]), path, plugins, problems)
    if _is_choice(hint):
        if node.value is None and _optional(hint):
            return None
        return choose(node, _kind(hint), path, plugins, problems)
    try:
        return coerce(node, hint, path)
    except Mismatch as mismatch:
        problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
        return None


def _choices(node: Node, kind: Kind, path: str, plugins: Sequence[str], problems: list[str]) -> list[Choice | None]:
    """A list of components."""
    if not isinstance(node.value, list):
        problems.append(
            f"{node.mark}: {path}: must be a list, each one of {', '.join(kind.entries(plugins))}, got {node.shown()}; write such as [{next(iter(kind.entries(plugins)))}]"
        )
        return []
    return [choose(item, kind, f"{path}.{i}", plugins, problems) for i, item in enumerate(node.value)]


def _learn(node: Node, path: str, plugins: Sequence[str], problems: list[str]) -> dict[str, Learn | None]:
    """Settings by name, each a mapping or the bare word of its ``per``."""
    if not isinstance(node.value, dict):
        problems.append(f"{node.mark}: {path}: must be a mapping of settings, got {node.shown()}; write such as {{lr: layer}}")
        return {}
    sections = {k: Node({"per": child}, child.mark, child.key) if isinstance(child.value, str) else child for k, child in node.value.items()}
    return {key: section(child, Learn, f"{path}.{key_text(key)}", plugins, problems) for key, child in sections.items()}


def _augment(node: Node, path: str, plugins: Sequence[str], problems: list[str]) -> Augment | None:
    if isinstance(node.value, dict):
        if set(node.value) == {"level"}:
            return Augment(level=_value(node.value["level"], Level, f"{path}.level", (), problems))
        unknown = next((key for key in node.value if key != "level"), "level")
        if node.implied and unknown.isdecimal():
            problems.append(
                f"{node.mark}: {path}.{unknown}: there is no list, since the default is a level; set the whole list, such as augment=[RandomHorizontalFlip]"
            )
            return None
        child = node.value.get(unknown)
        problems.append(
            f"{(child.key if child else None) or node.mark}: {path}.{key_text(unknown)}: is no known key; write {{level: 1 to 4}} or a list of operations"
        )
        return None
    if isinstance(node.value, list):
        choices = [choose(item, r.AUGMENTATIONS, f"{path}.{i}", plugins, problems) for i, item in enumerate(node.value)]
        return Augment(operations=tuple(c for c in choices if c is not None))
    problems.append(f"{node.mark}: {path}: must be {{level: 1 to 4}} or a list of operations, got {node.shown()}; write augment: {{level: 3}}")
    return None


def _is_choice(hint: Any) -> bool:
    return typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] in (Choice, Choice | None)


def _optional(hint: Any) -> bool:
    return typing.get_args(hint)[0] is not Choice


def _kind(hint: Any) -> Kind:
    return typing.get_args(hint)[1]  # type: ignore[no-any-return]
