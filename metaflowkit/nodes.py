"""The pipeline as a value: one field per YAML key in data-flow order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from metaflowkit import registry as r
from metaflowkit.files import to_yaml
from metaflowkit.registry import Choice
from metaflowkit.schema import Count, Natural, Positive, Range, Several

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
    way: Several | list[Several] = 5
    shot: Count | list[Count] = 1
    query: Count = 15
    episodes: Several = 600
    val_episodes: Several = 200
    readouts: list[Readout] = field(default_factory=lambda: ["prototype", "adapted"])
    views: Natural | None = None
    seed: Natural = 0

    def settings(self) -> list[tuple[int, int]]:
        """Every (way, shot) to be measured, once."""
        ways, shots = listed(self.way), listed(self.shot)
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


def listed(value: int | list[int]) -> list[int]:
    """A number or a list of them as a list."""
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, Augment):
        return {"level": value.level} if value.level is not None else [c.plain() for c in value.operations]
    if isinstance(value, Choice):
        return value.plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
