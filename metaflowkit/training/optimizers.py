"""The outer loop's optimisers, torch's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from metaflowkit.config.registry import OPTIMIZERS
from metaflowkit.config.schema import Decay, Fraction, NonNegative, Positive

T = TypeVar("T", bound=torch.optim.Optimizer)

_MARKED = ("step", "add_param_group", "zero_grad", "state_dict", "load_state_dict")


def without_compiler(optimizer: type[T]) -> type[T]:
    """An optimiser of torch's that does not import torch's compiler.

    torch wraps some methods of its optimisers so that its compiler leaves them alone, and these wrappers import the compiler, which takes nearly as long as importing
    torch. Here they are what is wrapped; the step takes no gradient either way.
    """
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in _MARKED}
    return type(optimizer.__name__, (optimizer,), {**methods, "step": torch.no_grad()(methods["step"])})


Adam = without_compiler(torch.optim.Adam)
AdamW = without_compiler(torch.optim.AdamW)
SGD = without_compiler(torch.optim.SGD)


@OPTIMIZERS.register("adam")
def adam(parameters: Iterable[Tensor], lr: Positive = 1e-3, beta1: Decay = 0.9, beta2: Decay = 0.999, weight_decay: NonNegative = 0.0) -> torch.optim.Optimizer:
    """torch.optim.Adam.

    Args:
        lr: step size.
        beta1: decay of the mean.
        beta2: decay of the mean square.
        weight_decay: L2 penalty.
    """
    return Adam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Iterable[Tensor], lr: Positive = 1e-3, beta1: Decay = 0.9, beta2: Decay = 0.999, weight_decay: NonNegative = 0.01
) -> torch.optim.Optimizer:
    """torch.optim.AdamW.

    Args:
        lr: step size.
        beta1: decay of the mean.
        beta2: decay of the mean square.
        weight_decay: decoupled decay.
    """
    return AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Iterable[Tensor], lr: Positive = 0.1, momentum: Fraction = 0.9, nesterov: bool = False, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """torch.optim.SGD.

    Args:
        lr: step size.
        momentum: decay of the buffer.
        nesterov: look ahead along the buffer.
        weight_decay: L2 penalty.

    Raises:
        ValueError: Nesterov's momentum without momentum.
    """
    if nesterov and not momentum:
        raise ValueError("nesterov needs momentum, got momentum 0; set momentum, such as 0.9, or leave nesterov out")
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
