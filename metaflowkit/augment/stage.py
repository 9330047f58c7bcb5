"""The augmentation stage: a list of operations applied to a batch of examples, isolated and repeatable."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import AUGMENTATIONS
from metaflowkit.errors import ConfigError
from metaflowkit.seeding import seed_for, seeded


class Stage:
    """Operations in their order, each on support views, query views or both: Kornia's, and registered ones.

    Args:
        operations: names and settings.
        seed: the run's seed.
        like: some examples [n, *shape] of the kind that the stage is given; every operation is tried on them.

    Raises:
        ConfigError: an operation refuses its settings or these examples, or changes their shape or type.
    """

    def __init__(self, operations: Sequence[Choice], seed: int, like: Tensor) -> None:
        self.seed, self.shape = seed, tuple(like.shape[1:])
        self.operations: list[tuple[str, Any]] = []
        problems = []
        for i, choice in enumerate(operations):
            try:
                operation = _operation(Choice(choice.name, {k: v for k, v in choice.settings.items() if k != "apply_to"}), self.shape)
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    result = operation(like.clone())
                if not isinstance(result, Tensor) or result.shape != like.shape or result.dtype != like.dtype:
                    raise ValueError(
                        f"it turns examples of {self.shape} into {tuple(getattr(result, 'shape', ()))[1:]}, and they must keep their shape and type"
                    )
            except Exception as error:  # Kornia raises many types here, all about these settings
                problems.append(
                    f"augment.{i}: {choice.name} does not work on examples of shape {self.shape}: {' '.join(str(error).split())}; correct its settings or choose another"
                )
                continue
            self.operations.append((choice.settings.get("apply_to", "both"), operation))
        if problems:
            raise ConfigError(problems)

    @torch.no_grad()
    def __call__(self, x: Tensor, role: str, purpose: str, index: int) -> Tensor:
        """Augment.

        Kornia draws from torch's global generators, so each operation runs in a fork of them that is seeded from
        (seed, purpose, role, index): draws here and elsewhere do not affect each other.

        Args:
            x: examples [..., *shape], float images in 0..1; leading axes are flattened into one batch.
            role: ``support`` or ``query``.
            purpose: stream, such as ``train``.
            index: step or episode.

        Returns:
            Examples of the same shape; floating point numbers are clamped to 0..1.
        """
        if not self.operations:
            return x
        flat = x.flatten(0, -1 - len(self.shape))
        for i, (apply_to, operation) in enumerate(self.operations):
            if apply_to in ("both", role):
                with seeded(seed_for(self.seed, f"augment/{purpose}/{role}/{i}", index), x.device):
                    flat = operation(flat)
        return (flat.clamp(0, 1) if flat.is_floating_point() else flat).reshape(x.shape)


def _operation(choice: Choice, shape: tuple[int, ...]) -> Any:
    """A registered operation, or one of Kornia's for images of this shape."""
    entry = AUGMENTATIONS.foreign().get(choice.name)
    if entry is not None:
        size = {"size": list(shape[-2:])} if "size" in entry.settings and choice.settings.get("size") is None else {}
        return _build(getattr(K, choice.name), choice.settings | size)
    return AUGMENTATIONS.build(choice)


def _build(operation: Any, settings: dict[str, Any]) -> Any:
    """A Kornia operation; a list becomes a tuple, or a tensor where only tensors are accepted."""
    hints = typing.get_type_hints(operation.__init__)

    def argument(name: str, value: Any) -> Any:
        hint = hints.get(name)
        only_tensor = set(typing.get_args(hint) or (hint,)) - {type(None)} == {Tensor}
        return torch.tensor(value) if only_tensor and value is not None else _tuples(value)

    return operation(**{name: argument(name, value) for name, value in settings.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
