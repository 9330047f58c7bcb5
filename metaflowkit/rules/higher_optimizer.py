"""Optimisers of ``higher`` as they come, for the engine of that name."""

from __future__ import annotations

import inspect
from typing import Literal

import torch

from metaflowkit.config.registry import RULES
from metaflowkit.errors import ConfigError
from metaflowkit.types import Params, State

ELSEWHERE = "the optimisers of higher run in its engine alone; set inner.engine: higher, or auto"
IGNORED = ("maximize", "decoupled_weight_decay", "foreach", "fused", "capturable", "differentiable")


@RULES.register("higher")
class HigherOptimizer:
    """One of ``higher``'s own differentiable optimisers, in the engine ``higher`` alone.

    They follow the optimiser of torch of the same name, except Adam, whose eps stands elsewhere (one step at eps 1e-3 moves
    -0.0215 instead of -0.0897); this library's rules of these names are exact, and run in every engine.

    Args:
        optimizer: the class in ``torch.optim``.
        options: its arguments; what ``higher`` would ignore in silence is refused.

    Raises:
        ValueError: an option that there is not, or one that ``higher`` ignores.

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
        self.kind = getattr(torch.optim, optimizer)
        accepted = [name for name in inspect.signature(self.kind).parameters if name != "params"]
        for name, value in options.items():
            if name not in accepted:
                raise ValueError(f"torch.optim.{optimizer} has no option {name!r}; use one of {', '.join(n for n in accepted if n not in IGNORED)}")
            if name in IGNORED and value:
                raise ValueError(f"higher ignores {name!r} of torch.optim.{optimizer} in silence; leave it out")
        self.options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}

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
        raise ConfigError(f"inner.engine: {ELSEWHERE}")
