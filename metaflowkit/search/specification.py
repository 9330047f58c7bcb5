"""Reading a search file: every problem at once, and each path checked with the pipeline before anything starts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.metric import Metric
from metaflowkit.config.pipeline import is_search, plugins_in, read_node, section
from metaflowkit.config.plugin_refusals import refusal
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Pipeline, plain
from metaflowkit.config.yaml import Node, apply_overrides, as_node, put, read_yaml
from metaflowkit.errors import ConfigError, key_text, quoted
from metaflowkit.search.distributions import Axis, Setting, changed, grid, merged
from metaflowkit.search.settings import Settings
from metaflowkit.search.space import Reader


@dataclass(frozen=True)
class Search:
    """A checked search.

    Attributes:
        settings: the keys of its file.
        root: the nodes of the pipeline that it starts from.
        pipeline: the same, checked.
        axes: what varies.
        baseline: the pipeline itself as a point of the space.
    """

    settings: Settings
    root: Node
    pipeline: Pipeline
    axes: tuple[Axis, ...]
    baseline: dict[str, Any]

    def at(self, settings: Sequence[Setting]) -> Pipeline:
        """The pipeline of a trial.

        Raises:
            ConfigError: values that are each valid alone are in conflict.
        """
        return read_node(changed(self.root, settings), self.settings.name)

    def written_out(self) -> dict[str, Any]:
        """The whole search as one mapping, from which any machine reads the same search."""
        excluded = ("set", "storage")  # the first is in the pipeline; the second is given to each command, since it may hold a password
        return {key: plain(value) for key, value in vars(self.settings).items() if key not in excluded} | {"pipeline": self.pipeline.plain()}

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """The points that are queued at the start: the baseline, or all of a grid with it first."""
        if not self.exhaustive:
            return [self.baseline]
        return [self.baseline, *(point for point in grid(self.axes) if point != self.baseline)]

    @property
    def metrics(self) -> dict[str, Literal["maximize", "minimize"]]:
        """Directions by metric."""
        return dict(self.settings.metrics or {})

    @property
    def trials(self) -> int:
        """How many trials there are in all."""
        return len(self.points) if self.exhaustive else self.settings.trials

    @cached_property
    def exhaustive(self) -> bool:
        """Whether every point of the space is a trial."""
        return bool(_tags(r.SAMPLERS, self.settings.sampler, self.pipeline)["exhaustive"])

    @cached_property
    def pruning(self) -> Mapping[str, Any]:
        """The tags of the pruner."""
        return _tags(r.PRUNERS, self.settings.pruner, self.pipeline)


def read_search(path: str | Path, overrides: Sequence[str] = (), **settings: Any) -> Search:
    """Read and check a search file.

    Args:
        path: the YAML file.
        overrides: changes to the pipeline, ``path.to.key=value`` each.
        settings: keys of the file that the command line sets, such as trials; None leaves the file's.

    Raises:
        ConfigError: with every problem found, each with its location, what is wrong and what to do.
    """
    root = read_yaml(path)
    if "dataset" in root.value and not is_search(root):
        raise ConfigError(f"{path}: is a pipeline, not a search file; start it with mfk run {shlex.quote(str(path))}")
    for key, value in settings.items():
        root = root if value is None else put(root, key, as_node(value, root.mark))
    return search_of(root, Path(path).stem, Path(path).parent, overrides)


def search_of(root: Node, name: str, folder: Path, overrides: Sequence[str] = ()) -> Search:
    """The search that a mapping stands for; see :func:`read_search`.

    Args:
        root: the mapping.
        name: of the study where the mapping gives none.
        folder: where the pipeline's path starts.
        overrides: changes to the pipeline.
    """
    problems: list[str] = []
    named_root = root if "name" in root.value else put(root, "name", Node(name, root.mark))
    settings: Settings | None = section(named_root, Settings, "", _plugins(root, folder), problems)
    axes = Reader(problems).axes(root.value["space"]) if "space" in root.value else ()
    if settings is None or problems:
        raise ConfigError(problems)
    base = _base(root, folder, overrides)
    pipeline = read_node(base, settings.name)
    if settings.metrics is None:
        settings = dataclasses.replace(settings, metrics={f"val/{pipeline.metric.name}": _direction(pipeline.metric)})
    base = as_node(pipeline.plain(), base.mark)  # with every default, so that a path may pass through keys that the file leaves out
    problems += [*_axis_problems(axes, base, settings.name), *_conflicts(root, settings, axes, pipeline)]
    if problems:
        raise ConfigError(problems)

    def resolved(changes: Sequence[Setting]) -> Any:
        return read_node(changed(base, changes), settings.name).plain()

    points = [axis.point_of(pipeline.plain(), resolved) for axis in axes]
    if None in points:
        raise ConfigError(
            [
                f"{axis.mark}: space.{key_text(axis.path)}: must contain the pipeline's own value, since the first trial is the pipeline itself; "
                f"widen it, or set the value elsewhere with set: {{{key_text(axis.path)}: ...}}"
                for axis, point in zip(axes, points)
                if point is None
            ]
        )
    return Search(settings, base, pipeline, axes, merged(points))


def _plugins(root: Node, folder: Path) -> list[str]:
    """The plugins of the pipeline, which may bring samplers and pruners too; none where it cannot be read, which is reported later."""
    pipeline = root.value.get("pipeline")
    with contextlib.suppress(ConfigError):
        if pipeline is not None and isinstance(pipeline.value, dict):
            return plugins_in(pipeline)
        if pipeline is not None and isinstance(pipeline.value, str):
            return plugins_in(read_yaml(folder / pipeline.value))
    return []


def _base(root: Node, folder: Path, overrides: Sequence[str]) -> Node:
    pipeline = root.value["pipeline"]
    base = pipeline
    if isinstance(pipeline.value, str):
        path = folder / pipeline.value
        if not os.path.isfile(path):  # false also of a name that is too long for the system, where Path raises an error
            raise ConfigError(f"{pipeline.mark}: pipeline: there is no file {path}; give its path from this file's folder")
        base = read_yaml(path)
    for key, value in (root.value["set"].value if "set" in root.value else {}).items():
        base = put(base, key, value)
    return apply_overrides(base, overrides)


def _axis_problems(axes: Sequence[Axis], base: Node, name: str) -> list[str]:
    """The problems of the pipeline at the bounds and choices of each axis."""
    problems: list[str] = []
    for axis in axes:
        for settings in axis.extremes():
            try:
                read_node(changed(base, settings), name)
            except ConfigError as error:
                problems += [p for p in error.problems if p not in problems]
    return problems


def _direction(metric: Metric) -> Literal["maximize", "minimize"]:
    return "maximize" if metric.higher_is_better else "minimize"


def _tags(kind: r.Kind, choice: Choice, pipeline: Pipeline) -> Mapping[str, Any]:
    return kind.entries(pipeline.plugins)[choice.name].tags


def _conflicts(root: Node, settings: Settings, axes: Sequence[Axis], pipeline: Pipeline) -> list[str]:
    """Conflicts between keys that are each valid alone."""
    problems = []

    def wrong(key: str, message: str) -> None:
        problems.append(f"{root.value[key].mark if key in root.value else root.mark}: {key}: {message}")

    injected = {"seed": settings.seed, "outer_steps": pipeline.outer.steps}
    for key, kind, choice in (("sampler", r.SAMPLERS, settings.sampler), ("pruner", r.PRUNERS, settings.pruner)):
        if (text := refusal(kind, choice, injected)) is not None:
            wrong(key, text)
    task_metric = pipeline.metric
    metrics, val_metric = settings.metrics or {}, f"val/{task_metric.name}"
    if not metrics:
        wrong("metrics", f"must name at least one, got none; write such as {{{val_metric}: {_direction(task_metric)}}}")
    for metric, direction in metrics.items():
        if metric.startswith("test"):
            wrong("metrics", f"a search never touches test classes, got {quoted(metric)}; use {val_metric}")
        elif metric not in (val_metric, "seconds", "memory"):
            wrong("metrics", f"there is no metric {quoted(metric)}; {nearest(metric, (val_metric, 'seconds', 'memory'))}")
        elif metric == val_metric and direction != _direction(task_metric):
            wrong(
                "metrics", f"{val_metric} is better {'higher' if task_metric.higher_is_better else 'lower'}, got {direction}; write {_direction(task_metric)}"
            )
    if len(metrics) > 1 and _tags(r.PRUNERS, settings.pruner, pipeline)["prunes"]:
        wrong("metrics", f"several metrics go without pruner, got the pruner {settings.pruner.name!r}; write pruner: none")
    if _tags(r.SAMPLERS, settings.sampler, pipeline)["exhaustive"]:
        try:
            if next(itertools.islice(grid(axes), 100_000, None), None) is not None:
                wrong("sampler", "the grid has more than 100,000 points; take fewer, or another sampler")
        except ValueError as error:
            wrong("sampler", str(error))
    for axis, other in itertools.permutations(axes, 2):
        if axis.path.startswith(f"{other.path}."):
            problems.append(
                f"{axis.mark}: space.{key_text(axis.path)}: lies inside {key_text(other.path)}, which is replaced as a whole; "
                "put it into the space of a choice there"
            )
    if "/" in settings.name or not settings.name.strip():
        wrong("name", f"must be a name that can be a folder's, got {quoted(settings.name)}; leave the slash out")
    return problems
