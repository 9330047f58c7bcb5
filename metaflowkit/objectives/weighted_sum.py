"""A weighted sum of objectives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Component, NonNegative
from metaflowkit.types import Adapted, Episode


@OBJECTIVES.register("weighted_sum")
class WeightedSum:
    """The weighted sum of other objectives of the same student: sum_i weight_i objective_i.

    Args:
        terms: objectives, such as [bootstrapped_kl, {name: nt_xent, temperature: 0.2}].
        weights: of each; null for 1 each.
    """

    def __init__(self, terms: list[Component], weights: list[NonNegative] | None = None) -> None:
        if len(terms) == 0:
            raise ValueError("terms must name at least one objective, got none; write such as [bootstrapped_kl, nt_xent]")
        if weights is not None and len(weights) != len(terms):
            raise ValueError(f"weights must be as many as terms, {len(terms)}, got {len(weights)}; give one for each")
        self.terms: list[Any] = [OBJECTIVES.checked(term, type(term).__name__) for term in terms]
        self.weights = [1.0] * len(terms) if weights is None else weights
        self.further_steps = max(term.further_steps for term in self.terms)
        self.needs_classes = any(term.needs_classes for term in self.terms)
        decays = {term.average_decay for term in self.terms} - {None}
        if len(decays) > 1:
            raise ValueError(f"terms must agree on one decay of the moving average, got {sorted(decays)}; give them the same ema")
        self.average_decay = next(iter(decays), None)

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value; metrics are those of the terms, of several with one name the first term's, and the terms' values ``term_1``, ``term_2``, ..."""
        values: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        for i, term in enumerate(self.terms, 1):
            value, named = term(adapted, task)
            values.append(value)
            metrics |= {f"term_{i}": value.detach(), **{name: metric for name, metric in named.items() if name not in metrics}}
        return torch.stack([weight * value for weight, value in zip(self.weights, values)]).sum(), metrics
