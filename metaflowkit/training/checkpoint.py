"""Checkpoints: saved atomically, restored exactly."""

from __future__ import annotations

import copy
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import CheckpointError

FORMAT = 2
KEPT = 2


@dataclass
class Snapshot:
    """The state from which a run is resumed.

    Attributes:
        step: outer steps done.
        model: the model's state dict.
        optimizer: the outer optimiser's state dict.
        journal: length of the metric log in bytes.
        best: ``step``, and ``value`` of the best validation so far; None before the first.
        untrained: validation before the first step.
        pipeline: the resolved pipeline as YAML.
        episodes: validation of every episode, of the ``untrained`` network and of the ``best`` weights so far.
        shape: of an example that the model reads, such as [C, H, W]; empty in runs of earlier versions.
        average: the moving average of the meta-parameters by name; empty where the objective reads none.
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    journal: int
    best: dict[str, float] | None
    untrained: float | None
    pipeline: str
    episodes: dict[str, list[float]] = field(default_factory=dict)
    shape: list[int] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)


def save(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot; a reader never sees a part of it.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(_canonical({"format": FORMAT, **vars(snapshot)}), buffer)
    write_atomic(path, buffer.getvalue())


def _canonical(value: Any) -> Any:
    """A copy whose pickle depends on the content alone: otherwise the bytes would depend on which objects are shared."""
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_canonical(item) for item in value])
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return sys.intern(value) if isinstance(value, str) else value


def load(path: Path) -> Snapshot:
    """Read a snapshot, with ``weights_only=True``, onto the CPU.

    Raises:
        CheckpointError: the file is missing, cut short, or of another format.
    """
    others = [other.name for other in saved(path.parent) if other != path]
    remedy = f"remove it to go on from {others[-1]}" if others else "start the run again with --overwrite"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content.pop("format")
        snapshot = Snapshot(**copy.deepcopy(content)) if version == FORMAT else None
        if snapshot is not None and not _typed(snapshot):
            raise ValueError("its parts are not those of a checkpoint")
    except Exception as error:  # what unpickling raises on damaged bytes has no common class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: is no whole checkpoint ({reason}); {remedy}") from None
    if snapshot is None:
        raise CheckpointError(f"{path}: is of another format; use the version of metaflowkit that wrote it")
    return snapshot


def _typed(snapshot: Snapshot) -> bool:
    numbers = isinstance(snapshot.step, int) and isinstance(snapshot.journal, int) and isinstance(snapshot.untrained, float | None)
    weights = isinstance(snapshot.model, dict) and all(isinstance(value, torch.Tensor) for value in snapshot.model.values())
    return numbers and weights and isinstance(snapshot.best, dict | None) and isinstance(snapshot.pipeline, str)


def require_fit(snapshot: Snapshot, path: Path, model: nn.Module, remedy: str) -> None:
    """Compare names and shapes of a checkpoint's weights with those of a model.

    Raises:
        CheckpointError: with the first that differ, and ``remedy``.
    """
    stored = {name: tuple(value.shape) for name, value in snapshot.model.items()}
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    differing = [
        f"{name} is {stored.get(name, 'not')} there and {expected.get(name, 'not')} here"
        for name in {**expected, **stored}
        if stored.get(name) != expected.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(f"{path}: its weights do not fit this model ({'; '.join(differing[:3])}{more}); {remedy}")


def saved(folder: Path) -> list[Path]:
    """The step checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.pt"), key=lambda path: (len(path.name), path.name))


def step_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:07d}.pt"


def prune(folder: Path) -> None:
    """Keep the last two step checkpoints (``best.pt`` is another file)."""
    for path in saved(folder)[:-KEPT]:
        path.unlink(missing_ok=True)
