"""The base of the update rules: a state per tensor, a step counter, and settings that may be numbers or tensors."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from metaflowkit.trees import Params, State

TensorState = dict[str, Tensor]
Value = float | Tensor


class PerTensor(abc.ABC):
    """A rule that treats every tensor separately and in the same way.

    A subclass says how a tensor's state starts (:meth:`start`) and what one step does to it (:meth:`step`); both are pure.

    Attributes:
        settings: the numbers of the rule by name; each is a float, a tensor (which the result is then differentiable in),
            or a mapping from parameter name to either.
    """

    learnable = True
    native = False
    settings: Mapping[str, Any]

    def init(self, params: Params) -> State:
        """The state before the first step."""
        return {"step": 0, "tensors": {name: self.start(p) for name, p in params.items()}}

    def update(self, grads: Params, state: State, params: Params) -> tuple[Params, State]:
        """One step; pure and differentiable in every argument and in every setting."""
        count = state["step"] + 1
        updated: Params = {}
        states: dict[str, TensorState] = {}
        for name, p in params.items():
            settings = {key: value[name] if isinstance(value, Mapping) else value for key, value in self.settings.items()}
            updated[name], states[name] = self.step(p, grads[name], state["tensors"][name], count, **settings)
        return updated, {"step": count, "tensors": states}

    def replace(self, **settings: Any) -> PerTensor:
        """The same rule with other settings; they may be tensors or mappings, see ``settings``."""
        other = copy.copy(self)
        other.settings = {**self.settings, **settings}
        return other

    @abc.abstractmethod
    def start(self, p: Tensor) -> TensorState:
        """The state of a tensor before the first step."""

    step: Callable[..., tuple[Tensor, TensorState]]
    """(tensor, gradient, its state, step from 1, settings by name) -> the tensor and its state after the step."""


def used(value: Value) -> bool:
    """Whether a setting has an effect: a tensor may have one, the number zero has none."""
    return isinstance(value, Tensor) or value != 0


def decayed(p: Tensor, g: Tensor, weight_decay: Value) -> Tensor:
    """The gradient with that of the L2 penalty added."""
    return g + weight_decay * p if used(weight_decay) else g


def safe_sqrt(v: Tensor) -> Tensor:
    """The square root with derivative 0 instead of infinity at 0: a unit whose gradient is exactly zero stays put."""
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).sqrt(), 0.0)
