"""The augmentation operations of a pipeline: those it lists, or those of its level for its examples."""

from __future__ import annotations

from metaflowkit.augment.levels import level_operations
from metaflowkit.config.choice import Choice
from metaflowkit.config.types import Pipeline
from metaflowkit.errors import ConfigError
from metaflowkit.types import ExampleSet


def operations(pipeline: Pipeline, examples: ExampleSet) -> list[Choice]:
    """The augmentation operations: those of the list, or those of the level for these examples."""
    if pipeline.augment.level is None:
        return list(pipeline.augment.operations)
    kind = level_kind(examples)
    if kind is None:
        raise ConfigError(f"{pipeline.place('augment')}: there are no levels for {examples.modality}; list operations, or write augment: []")
    return level_choices(pipeline.augment.level, kind)


def level_choices(level: int, kind: str) -> list[Choice]:
    """The operations of a level for ``grey`` or ``color`` images or ``tokens``."""
    return [Choice(node.pop("name"), node) for node in level_operations(level, kind)]


def level_kind(examples: ExampleSet) -> str | None:
    """Which levels of augmentation are for these examples; None where none are."""
    if examples.modality == "images":
        return "grey" if examples.x.shape[1] == 1 else "color"
    return "tokens" if examples.modality == "tokens" else None
