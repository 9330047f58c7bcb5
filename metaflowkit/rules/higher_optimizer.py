"""Optimisers of ``higher`` unchanged, for the engine of that name."""

from __future__ import annotations

from typing import Literal

import torch

from metaflowkit.config.registry import RULES
from metaflowkit.errors import ConfigError
from metaflowkit.trees import Params, State

HIGHER_ENGINE_ONLY = "the optimisers of higher run in its engine alone; set inner.engine: higher, or auto"
OPTIONS = {
    "SGD": ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    "Adam": ("lr", "betas", "eps", "weight_decay", "amsgrad"),
    "Adadelta": ("lr", "rho", "eps", "weight_decay"),
    "Adagrad": ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
    "Adamax": ("lr", "betas", "eps", "weight_decay"),
    "ASGD": ("lr", "lambd", "alpha", "t0", "weight_decay"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
    "Rprop": ("lr", "etas", "step_sizes"),
}
"""The arguments of each class in torch.optim that higher reads, written out so that they are known without importing torch."""
IGNORED = ("maximize", "decoupled_weight_decay", "foreach", "fused", "capturable", "differentiable")


@RULES.register("higher")
class HigherOptimizer:
    """One of ``higher``'s own differentiable optimisers, in the engine ``higher`` alone.

    They follow the optimiser of torch of the same name, except Adam, whose eps is added elsewhere (one step at eps 1e-3 moves
    -0.0215 instead of -0.0897); this library's rules of these names are exact, and run in every engine.

    Args:
        optimizer: the class in ``torch.optim``.
        options: its arguments; what ``higher`` would silently ignore is refused.

    Raises:
        ValueError: an unknown option, or one that ``higher`` ignores.

    Reference:
        E. Grefenstette et al., Generalized Inner Loop Meta-Learning, 2019.
    """

    learnable = False
    native = True

    def __init__(
        self,
        optimizer: Literal["SGD", "Adam", "Adadelta", "Adagrad", "Adamax", "ASGD", "RMSprop", "Rprop"],
        options: dict[str, float | bool | list[float]] = {},  # noqa: B006, read as the schema's default and never changed
    ) -> None:
        if ignored := [name for name, value in options.items() if value and name in IGNORED]:
            raise ValueError(f"higher silently ignores {ignored[0]!r} of torch.optim.{optimizer}; leave it out")
        if unknown := [name for name in options if name not in OPTIONS[optimizer] and name not in IGNORED]:
            raise ValueError(f"torch.optim.{optimizer} has no option {unknown[0]!r}; use one of {', '.join(OPTIONS[optimizer])}")
        self.kind = getattr(torch.optim, optimizer)
        self.options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if name not in IGNORED}

    def over(self, params: list[torch.Tensor]) -> torch.optim.Optimizer:
        """The optimiser of torch that ``higher`` copies.

        Raises:
            ValueError: from torch, about the options.
        """
        return self.kind(params, **self.options)  # type: ignore[no-any-return]

    def init(self, params: Params) -> State:
        """Nothing: ``higher`` makes the state at the first step."""
        return {}

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """Refused: in its own engine ``higher`` takes the step itself.

        Raises:
            ConfigError: another engine asks.
        """
        raise ConfigError(f"inner.engine: {HIGHER_ENGINE_ONLY}")
