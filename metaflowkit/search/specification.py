"""Reading a search file: every problem at once, each path proven against the pipeline before anything starts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from metaflowkit.config.pipeline import is_search, plugins_in, read_node, section
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Metric, Pipeline, plain
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
            ConfigError: values that are right each by itself do not go together.
        """
        return read_node(changed(self.root, settings), self.settings.name)

    def written_out(self) -> dict[str, Any]:
        """Everything in one mapping, which reads back to this search on any machine."""
        elsewhere = ("set", "storage")  # in the pipeline; and said to each command, since it may hold a password
        return {key: plain(value) for key, value in vars(self.settings).items() if key not in elsewhere} | {"pipeline": self.pipeline.plain()}

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """What is queued before anything is suggested: the baseline, or all of a grid with it first."""
        if self.settings.sampler.name != "grid":
            return [self.baseline]
        return [self.baseline, *(point for point in grid(self.axes) if point != self.baseline)]

    @property
    def metrics(self) -> dict[str, Literal["maximize", "minimize"]]:
        """Directions by metric."""
        return dict(self.settings.metrics or {})

    @property
    def trials(self) -> int:
        """How many trials there are in all."""
        return len(self.points) if self.settings.sampler.name == "grid" else self.settings.trials


def read_search(path: str | Path, overrides: Sequence[str] = (), **given: Any) -> Search:
    """Read and check a search file.

    Args:
        path: the YAML file.
        overrides: changes to the pipeline, ``path.to.key=value`` each.
        given: keys of the file that the command line sets, such as trials; None leaves the file's.

    Raises:
        ConfigError: with every problem found, each with its place, what is wrong and what to do.
    """
    root = read_yaml(path)
    if "dataset" in root.value and not is_search(root):
        raise ConfigError(f"{path}: is a pipeline, not a search file; start it with mfk run {shlex.quote(str(path))}")
    for key, value in given.items():
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
    named = root if "name" in root.value else put(root, "name", Node(name, root.mark))
    settings: Settings | None = section(named, Settings, "", _plugins(root, folder), problems)
    axes = Reader(problems).axes(root.value["space"]) if "space" in root.value else ()
    if settings is None or problems:
        raise ConfigError(problems)
    base = _base(root, folder, overrides)
    pipeline = read_node(base, settings.name)
    if settings.metrics is None:
        settings = dataclasses.replace(settings, metrics={f"val/{pipeline.metric.name}": _direction(pipeline.metric)})
    base = as_node(pipeline.plain(), base.mark)  # with every default, so that a path may pass through what the file leaves out
    problems += [*_proven(axes, base, settings.name), *_together(root, settings, axes, pipeline.metric)]
    if problems:
        raise ConfigError(problems)

    def resolved(changes: Sequence[Setting]) -> Any:
        return read_node(changed(base, changes), settings.name).plain()

    own = [axis.own(pipeline.plain(), resolved) for axis in axes]
    if None in own:
        raise ConfigError(
            [
                f"{axis.mark}: space.{key_text(axis.path)}: must contain the pipeline's own value, since the first trial is the pipeline itself; "
                f"widen it, or set the value elsewhere with set: {{{key_text(axis.path)}: ...}}"
                for axis, point in zip(axes, own)
                if point is None
            ]
        )
    return Search(settings, base, pipeline, axes, merged(own))


def _plugins(root: Node, folder: Path) -> list[str]:
    """The plugins of the pipeline, which may bring samplers and pruners too; none where it cannot be read, which is reported later."""
    given = root.value.get("pipeline")
    with contextlib.suppress(ConfigError):
        if given is not None and isinstance(given.value, dict):
            return plugins_in(given)
        if given is not None and isinstance(given.value, str):
            return plugins_in(read_yaml(folder / given.value))
    return []


def _base(root: Node, folder: Path, overrides: Sequence[str]) -> Node:
    given = root.value["pipeline"]
    base = given
    if isinstance(given.value, str):
        path = folder / given.value
        if not path.is_file():
            raise ConfigError(f"{given.mark}: pipeline: there is no file {path}; give its path from this file's folder")
        base = read_yaml(path)
    for path_, value in (root.value["set"].value if "set" in root.value else {}).items():
        base = put(base, path_, value)
    return apply_overrides(base, overrides)


def _proven(axes: Sequence[Axis], base: Node, name: str) -> list[str]:
    """What the pipeline says against the bounds and choices of each axis."""
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


def _together(root: Node, settings: Settings, axes: Sequence[Axis], measured: Metric) -> list[str]:
    """Problems between keys that are right each by itself."""
    problems = []

    def wrong(key: str, message: str) -> None:
        problems.append(f"{root.value[key].mark if key in root.value else root.mark}: {key}: {message}")

    metrics, own = settings.metrics or {}, f"val/{measured.name}"
    if not metrics:
        wrong("metrics", f"must name at least one, got none; write such as {{{own}: {_direction(measured)}}}")
    for metric, direction in metrics.items():
        if metric.startswith("test"):
            wrong("metrics", f"a search never touches test classes, got {quoted(metric)}; use {own}")
        elif metric not in (own, "seconds", "memory"):
            wrong("metrics", f"there is no metric {quoted(metric)}; {nearest(metric, (own, 'seconds', 'memory'))}")
        elif metric == own and direction != _direction(measured):
            wrong("metrics", f"{own} is better {'higher' if measured.higher_is_better else 'lower'}, got {direction}; write {_direction(measured)}")
    if len(metrics) > 1 and settings.pruner.name != "none":
        wrong("metrics", f"several metrics go without pruner, got the pruner {settings.pruner.name!r}; write pruner: none")
    if settings.sampler.name == "grid":
        try:
            if next(itertools.islice(grid(axes), 100_000, None), None) is not None:
                wrong("sampler", "the grid has more than 100,000 points; take fewer, or another sampler")
        except ValueError as error:
            wrong("sampler", str(error))
    for axis, outer in itertools.permutations(axes, 2):
        if axis.path.startswith(f"{outer.path}."):
            problems.append(
                f"{axis.mark}: space.{key_text(axis.path)}: lies inside {key_text(outer.path)}, which is replaced as a whole; put it into the space of a choice there"
            )
    if "/" in settings.name or not settings.name.strip():
        wrong("name", f"must be a name that can be a folder's, got {quoted(settings.name)}; leave the slash out")
    return problems
