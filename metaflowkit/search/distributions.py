"""The space of a search: what varies, which key of the pipeline it sets, and the point that the pipeline itself is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from metaflowkit.config.yaml import Mark, Node, as_node, put

Setting = tuple[str, Node]
"""A dotted path of the pipeline and its value."""


@dataclass(frozen=True)
class Number:
    """A number between two bounds.

    Attributes:
        name: in the study.
        path: in the pipeline.
        whole: whether it is a whole number.
        low, high: the bounds, both included.
        step: between neighbours; None for any number between.
        log: whether it is drawn evenly in its logarithm.
        mark: position of the key in the file.
        bounds: positions of ``low`` and ``high``.
    """

    name: str
    path: str
    whole: bool
    low: float
    high: float
    step: float | None
    log: bool
    mark: Mark
    bounds: tuple[Mark, Mark]

    def suggest(self, trial: optuna.Trial) -> Iterator[Setting]:
        """The trial's value."""
        if self.whole:
            value: float = trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        else:
            value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        yield self.path, Node(value, self.mark, self.mark)

    def extremes(self) -> Iterator[list[Setting]]:
        """The values at the bounds, whose validity is checked for the whole axis."""
        for value, mark in zip((self.low, self.high), self.bounds):
            yield [(self.path, Node(int(value) if self.whole else value, mark, self.mark))]

    def points(self) -> Iterator[dict[str, Any]]:
        """All values, for a grid.

        Raises:
            ValueError: there are infinitely many.
        """
        if self.step is None and not self.whole:
            raise ValueError("a grid needs a step or choices here, since numbers lie densely between the bounds; add step, or choose another sampler")
        step = self.step or 1
        for i in range(math.floor((self.high - self.low) / step + 1e-9) + 1):
            value = self.low + i * step
            yield {self.name: int(value) if self.whole else value}

    def point_of(self, plain: Any, resolved: Callable[[Sequence[Setting]], Any]) -> dict[str, Any] | None:
        """The study's parameters for the value in a pipeline, None where it lies outside.

        Args:
            plain: the pipeline as plain values.
            resolved: the plain values of the pipeline with some settings changed.
        """
        value = _at(plain, self.path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / self.step if self.step is not None and not self.log else 0.0
        return {self.name: value} if abs(steps - round(steps)) < 1e-9 else None


@dataclass(frozen=True)
class Option:
    """One of several values, with axes of its own that vary while it is chosen."""

    label: str | int | float | bool | None
    value: Node
    inside: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Options:
    """One of several values, which may be whole nodes of the pipeline.

    Attributes:
        name: in the study.
        path: in the pipeline.
        options: what can be chosen.
        mark: position of the key in the file.
    """

    name: str
    path: str
    options: tuple[Option, ...]
    mark: Mark

    def suggest(self, trial: optuna.Trial) -> Iterator[Setting]:
        """The trial's choice, then its settings."""
        label = trial.suggest_categorical(self.name, [o.label for o in self.options])
        option = next(o for o in self.options if o.label == label and type(o.label) is type(label))
        yield self.path, option.value
        for axis in option.inside:
            yield from axis.suggest(trial)

    def extremes(self) -> Iterator[list[Setting]]:
        """Every option, and the extremes of its settings."""
        for option in self.options:
            yield [(self.path, option.value)]
            for axis in option.inside:
                for settings in axis.extremes():
                    yield [(self.path, option.value), *settings]

    def points(self) -> Iterator[dict[str, Any]]:
        """All options with all values of their settings."""
        for option in self.options:
            for inside in grid(option.inside):
                yield {self.name: option.label, **inside}

    def point_of(self, plain: Any, resolved: Callable[[Sequence[Setting]], Any]) -> dict[str, Any] | None:
        """The study's parameters for the option that, with its settings as in the pipeline, gives the pipeline's node; None without one."""
        for option in self.options:
            points = [axis.point_of(plain, resolved) for axis in option.inside]
            if None in points:
                continue
            settings = [(axis.path, as_node(_at(plain, axis.path), self.mark)) for axis in option.inside]
            if _at(resolved([(self.path, option.value), *settings]), self.path) == _at(plain, self.path):
                return {self.name: option.label, **merged(points)}
        return None


Axis = Number | Options


def suggest(trial: optuna.Trial, axes: Sequence[Axis]) -> list[Setting]:
    """What a trial sets, in the order in which it is to be applied."""
    return [setting for axis in axes for setting in axis.suggest(trial)]


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every point of a finite space."""
    for combined in itertools.product(*([*axis.points()] for axis in axes)):
        yield merged(combined)


def merged(points: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Points of several axes as one."""
    return {name: value for point in points if point is not None for name, value in point.items()}


def changed(root: Node, settings: Sequence[Setting]) -> Node:
    """The pipeline's nodes with settings applied in order."""
    for path, value in settings:
        root = put(root, path, value)
    return root


def _at(plain: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(plain, dict):
            plain = plain.get(key)
        elif isinstance(plain, list) and key.isdigit() and int(key) < len(plain):
            plain = plain[int(key)]
        else:
            return None
    return plain
