"""The augmentation stage: a list of Kornia operations applied to a batch of images, isolated and repeatable."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor

from metaflowkit.config.registry import Choice
from metaflowkit.errors import ConfigError
from metaflowkit.seeding import seed_for, seeded


class Stage:
    """Kornia operations in their order, each on support views, query views or both.

    Args:
        operations: names and settings.
        seed: the run's seed.
        shape: (C, H, W) of the images; every operation is tried on one small batch of it.

    Raises:
        ConfigError: an operation refuses its settings or these images, or changes their shape.
    """

    def __init__(self, operations: Sequence[Choice], seed: int, shape: tuple[int, int, int]) -> None:
        self.seed = seed
        self.operations: list[tuple[str, Any]] = []
        problems = []
        for i, choice in enumerate(operations):
            try:
                operation = _build(getattr(K, choice.name), {k: v for k, v in choice.settings.items() if k != "apply_to"})
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    after = operation(torch.rand(2, *shape))
                if not isinstance(after, Tensor) or after.shape != (2, *shape):
                    raise ValueError(f"it turns images of {shape} into {tuple(getattr(after, 'shape', ()))}, and they must keep their shape")
            except Exception as error:  # Kornia raises many types here, all about these settings
                problems.append(
                    f"augment.{i}: {choice.name} does not work on images of shape {shape}: {' '.join(str(error).split())}; correct its settings or choose another"
                )
                continue
            self.operations.append((choice.settings.get("apply_to", "both"), operation))
        if problems:
            raise ConfigError(problems)

    @torch.no_grad()
    def __call__(self, x: Tensor, role: str, purpose: str, index: int) -> Tensor:
        """Augment.

        Kornia draws from torch's global generators, so each operation runs in a fork of them that is seeded from
        (seed, purpose, role, index): nothing drawn here changes what is drawn elsewhere, and the other way round.

        Args:
            x: float images in 0..1, [..., C, H, W]; leading axes are flattened into one batch.
            role: ``support`` or ``query``.
            purpose: stream, such as ``train``.
            index: step or episode.

        Returns:
            Images of the same shape, clamped to 0..1.
        """
        flat = x.flatten(0, -4)
        for i, (apply_to, operation) in enumerate(self.operations):
            if apply_to in ("both", role):
                with seeded(seed_for(self.seed, f"augment/{purpose}/{role}/{i}", index), x.device):
                    flat = operation(flat)
        return flat.clamp(0, 1).reshape(x.shape)


def _build(operation: Any, settings: dict[str, Any]) -> Any:
    """A Kornia operation; a list becomes a tuple, or a tensor where nothing else is taken."""
    hints = typing.get_type_hints(operation.__init__)

    def argument(name: str, value: Any) -> Any:
        hint = hints.get(name)
        only_tensor = set(typing.get_args(hint) or (hint,)) - {type(None)} == {Tensor}
        return torch.tensor(value) if only_tensor and value is not None else _tuples(value)

    return operation(**{name: argument(name, value) for name, value in settings.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
