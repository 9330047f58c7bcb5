"""An objective as its author would write it: a dataclass, whose fields are its settings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Positive

SMOOTHING = 0.25


@OBJECTIVES.register("outside_smoothed")
@dataclass(frozen=True)
class Smoothed:
    """Cross-entropy on the query at a temperature, with smoothed labels.

    Args:
        temperature: divides the scores.
        smoothing: share of the labels' mass that all classes get.
        scales: the factors of the loss, which are multiplied.
    """

    temperature: Positive = 1.0
    smoothing: float = SMOOTHING
    scales: list[float] = field(default_factory=lambda: [1.0, 2.0])

    def __call__(self, adapted, task):
        """Value and metrics."""
        scores = adapted.call(adapted.params, task.query.x).logits
        plain = F.cross_entropy(scores, task.query.y)
        value = F.cross_entropy(scores / self.temperature, task.query.y, label_smoothing=self.smoothing)
        for scale in self.scales:
            value = scale * value
        return value, {"plain": plain.detach(), "temperature": torch.tensor(self.temperature), "smoothing": torch.tensor(self.smoothing)}
