"""The result of a measurement: a mean over episodes with its 95 % confidence interval, and the difference of two on the same episodes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from metaflowkit.config.metric import Metric

ACCURACY = Metric()


@dataclass(frozen=True)
class FewShot:
    """How examples were classified: way, shot and query examples per class, the readout, and the statistics of normalisation that stores some."""

    way: int
    shot: int
    query: int
    readout: str
    statistics: str = "stored"

    aimed_at = True

    def __str__(self) -> str:
        return f"{self.way}-way {self.shot}-shot, {self._how}"

    @property
    def short(self) -> str:
        """For a line of a log."""
        return f"{self.way}w{self.shot}s {self._how}"

    @property
    def _how(self) -> str:
        return f"{self.readout}, current statistics" if self.statistics == "current" else self.readout


@dataclass(frozen=True)
class AdaptationSetting:
    """How a model adapted: number of support examples, and of inner steps on them."""

    shot: int
    steps: int

    @property
    def aimed_at(self) -> bool:
        """Whether training improves it: an initialisation from which adaptation goes far may be a bad model before the first step."""
        return self.steps > 0

    def __str__(self) -> str:
        return f"{self.shot}-shot, {self.steps} step{'s' if self.steps != 1 else ''}"

    @property
    def short(self) -> str:
        """For a line of a log."""
        return str(self)


@dataclass(frozen=True)
class Score:
    """A mean over episodes.

    Attributes:
        split: what it was measured on.
        setting: how.
        metric: what was measured.
        episodes: how many; examples, where one task has a value for each of them.
        value: the mean.
        ci95: half width of the 95 % interval of the mean, 1.96 s / sqrt(episodes).
        each: the value of every episode.
        counted: what ``episodes`` counts.
    """

    split: str
    setting: FewShot | AdaptationSetting
    metric: Metric
    episodes: int
    value: float
    ci95: float
    each: tuple[float, ...] = field(default=(), repr=False, compare=False)
    counted: str = field(default="episodes", compare=False)

    @classmethod
    def of(cls, split: str, setting: FewShot | AdaptationSetting, metric: Metric, values: Tensor, counted: str = "episodes") -> Score:
        """The score of some episodes.

        Args:
            split: what was measured on.
            setting: how.
            metric: what was measured.
            values: of each, float64 [n].
            counted: what the values are of.
        """
        return cls(split, setting, metric, len(values), values.mean().item(), ci95(values.std().item(), len(values)), tuple(values.tolist()), counted)

    def plain(self) -> dict[str, Any]:
        """As a JSON object: ``metric`` names the key with the value; values of single episodes to six digits."""
        values = {"metric": self.metric.name, "episodes": self.episodes, self.metric.name: self.value, "ci95": self.ci95}
        return {"split": self.split, **vars(self.setting), **values, "each": [round(value, 6) for value in self.each]}

    @classmethod
    def read(cls, line: Mapping[str, Any], metric: Metric) -> Score:
        """The score that :meth:`plain` wrote.

        Args:
            line: the JSON object.
            metric: of the pipeline that was measured.
        """
        kind = FewShot if "readout" in line else AdaptationSetting
        setting = kind(**{f.name: line[f.name] for f in fields(kind) if f.name in line})
        return cls(line["split"], setting, metric, line["episodes"], line[metric.name], line["ci95"], tuple(line.get("each", ())))

    def __str__(self) -> str:
        return f"{self.metric.with_ci(self.value, self.ci95)}{self.metric.unit}"


@dataclass(frozen=True)
class Difference:
    """How far one value lies above another that was measured on the same episodes.

    ``mean(d) ± 1.96 s(d) / sqrt(n)`` over the n differences d_i = after_i - before_i of single episodes. How hard an episode
    is cancels out of its difference, so that this interval is narrower than the intervals of the two values suggest.

    Attributes:
        mean: mean difference.
        ci95: half width of its 95 % interval.
        metric: of what.
    """

    mean: float
    ci95: float
    metric: Metric = ACCURACY

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0, so that the episodes tell the two apart."""
        return abs(self.mean) > self.ci95

    @property
    def worse(self) -> bool:
        """Whether the second value is worse, beyond the interval."""
        return self.resolved and self.metric.better(0.0, self.mean)

    def __str__(self) -> str:
        return self.metric.with_ci(self.mean, self.ci95, "+")


def paired(before: Sequence[float], after: Sequence[float], metric: Metric = ACCURACY) -> Difference | None:
    """The difference of two means, each given by the values of the same episodes in the same order; None where their numbers differ or are below two."""
    if len(before) != len(after) or len(after) < 2:
        return None
    differences = [b - a for a, b in zip(before, after)]
    return Difference(statistics.fmean(differences), ci95(statistics.stdev(differences), len(differences)), metric)


def ci95(deviation: float, count: int) -> float:
    """Half width of the 95 % interval of a mean over ``count`` independent values, by the normal approximation."""
    return 1.96 * deviation / math.sqrt(count)


def joined(values: Sequence[Tensor]) -> Tensor:
    """The values of some batches as one list, float64 on the CPU."""
    return torch.cat([value.double().flatten().cpu() for value in values])
