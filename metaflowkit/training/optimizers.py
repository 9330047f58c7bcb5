"""The outer loop's optimisers (torch's own) and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from metaflowkit.config.registry import OPTIMIZERS
from metaflowkit.config.schema import Decay, Fraction, NonNegative, Positive


@OPTIMIZERS.register("adam")
def adam(parameters: Iterable[Tensor], lr: Positive = 1e-3, beta1: Decay = 0.9, beta2: Decay = 0.999, weight_decay: NonNegative = 0.0) -> torch.optim.Optimizer:
    """torch.optim.Adam.

    Args:
        lr: step size.
        beta1: decay of the mean.
        beta2: decay of the mean square.
        weight_decay: L2 penalty.
    """
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


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
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


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
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


def schedule_factor(schedule: str, step: int, steps: int) -> float:
    """What the learning rate is multiplied with at an outer step.

    Args:
        schedule: ``constant``, or ``cosine`` for (1 + cos(pi (step - 1) / steps)) / 2.
        step: from 1 to ``steps``.
        steps: of the whole run.

    Example:
        >>> [round(schedule_factor("cosine", step, 4), 3) for step in (1, 3)]
        [1.0, 0.5]
    """
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
