"""Settings of an update rule as meta-parameters: one, or one per layer, parameter or element, and per step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metaflowkit.config.schema import Range


@dataclass(frozen=True)
class Learned:
    """How one setting is learned.

    Attributes:
        setting: its name, such as ``lr``.
        start: its value before learning.
        range: where it must stay: above 0 (kept by learning its logarithm), or in 0..1 (its logit).
        per: what has a value of its own: ``all`` share one, or each ``layer``, ``parameter`` or ``element``.
        per_step: whether each inner step has values of its own; steps beyond the last use the last one's.
    """

    setting: str
    start: float
    range: Range
    per: str = "all"
    per_step: bool = False

    def raw(self) -> float:
        """The start in its stored form.

        Raises:
            ValueError: it is a limit of its range, where nothing can be learned.
        """
        if problem := self.range.start_problem(self.setting, self.start):
            raise ValueError(problem)
        return math.log(self.start / (1 - self.start)) if self.range.high == 1 else math.log(self.start)

    def value(self, raw: Tensor) -> Tensor:
        """The value of stored numbers."""
        return raw.sigmoid() if self.range.high == 1 else raw.exp()

    def group(self, name: str) -> str:
        """The key of a parameter's values, in which dots are not allowed."""
        owner = {"all": "", "layer": name.rpartition(".")[0]}.get(self.per, name)
        return "/".join([self.setting, *owner.split(".")]) if owner else self.setting


class LearnedSettings(nn.Module):
    """The settings of a rule that are meta-learned.

    Meta-SGD is ``lr`` per element, MAML++'s LSLR is ``lr`` per layer and step. Parameters are named ``lr``, or ``lr/`` and the
    layer's or parameter's path; each has a first axis of the inner steps (or of length 1), then the element's axes.

    Args:
        settings: what is learned.
        shapes: of the parameters that adapt, by name.
        steps: inner steps.

    Reference:
        Z. Li et al., Meta-SGD, arXiv 1707.09835, 2017; A. Antoniou et al., How to train your MAML, ICLR 2019, section 4.
    """

    def __init__(self, settings: Iterable[Learned], shapes: Mapping[str, torch.Size], steps: int) -> None:
        super().__init__()
        self.settings = tuple(settings)
        self.names = tuple(shapes)
        for learned in self.settings:
            for name, shape in shapes.items():
                size = (steps if learned.per_step else 1, *(shape if learned.per == "element" else ()))
                key = learned.group(name)
                if key not in self._parameters:
                    self.register_parameter(key, nn.Parameter(torch.full(size, learned.raw())))

    def rule_at(self, rule: Any, values: Mapping[str, Tensor], step: int) -> Any:
        """The rule of an inner step.

        Args:
            rule: a learnable rule with its plain settings.
            values: this module's parameters by name.
            step: from 0.
        """
        return rule.replace(**{learned.setting: self._of_step(learned, values, step) for learned in self.settings})

    def _of_step(self, learned: Learned, values: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        by_key: dict[str, Tensor] = {}
        for name in self.names:
            key = learned.group(name)
            if key not in by_key:
                rows = values[key]
                by_key[key] = learned.value(rows[min(step, len(rows) - 1)])
        return {name: by_key[learned.group(name)] for name in self.names}
