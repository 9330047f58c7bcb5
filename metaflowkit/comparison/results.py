"""What a comparison shows: differences with intervals, seeds that are needed, steps and seconds to given levels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from metaflowkit.comparison.runs import Contender, pace_of
from metaflowkit.comparison.statistics import Estimate, Values, first_reaching, interquartile_mean, mean_over, probability_of_improvement, seeds_needed
from metaflowkit.config.metric import Metric
from metaflowkit.errors import RunError
from metaflowkit.training.final_scores import read_final_scores
from metaflowkit.training.metric_log import MetricLog

SHARES = (0.5, 0.75, 0.9)  # of the way from the untrained network to the worst of the pipelines' best validations


@dataclass(frozen=True)
class Measured:
    """The runs of one pipeline.

    Attributes:
        untrained: test values of each seed and episode by setting, [S, E], before training.
        trained: the same with the best weights.
        steps: of the validations.
        validations: of each seed, [S, validations].
        pace: seconds of an outer step, the median over seeds; None where none was timed.
    """

    untrained: dict[str, Values]
    trained: dict[str, Values]
    steps: list[int]
    validations: Values
    pace: float | None


@dataclass(frozen=True)
class Comparison:
    """The results of several pipelines; the first is the baseline.

    Attributes:
        metric: what was measured.
        seeds: of the runs.
        measured: by name.
        settings: that all of them were measured in.
    """

    metric: Metric
    seeds: Sequence[int]
    measured: dict[str, Measured]
    settings: list[str]

    @property
    def baseline(self) -> str:
        """The name of the first pipeline."""
        return next(iter(self.measured))

    def difference(self, name: str, setting: str) -> Estimate:
        """A pipeline less the baseline, run by run and episode by episode; positive is better."""
        return self._differences[name, setting]

    @cached_property
    def _differences(self) -> dict[tuple[str, str], Estimate]:
        """Resampled once, and read for text, page and numbers."""
        sign, base = 1 if self.metric.higher_is_better else -1, self.measured[self.baseline].trained
        return {(name, setting): mean_over(sign * (of.trained[setting] - base[setting])) for name, of in self.measured.items() for setting in self.settings}

    def needed(self, name: str, setting: str) -> int | None:
        """Seeds that would resolve the difference; see :func:`metaflowkit.comparison.statistics.seeds_needed`."""
        differences = self.measured[name].trained[setting] - self.measured[self.baseline].trained[setting]
        return seeds_needed(differences) if len(differences) > 1 else None

    def runs(self, name: str) -> Values:
        """Mean test values of each seed and setting, [S, M]; the larger the better."""
        sign = 1 if self.metric.higher_is_better else -1
        return sign * np.stack([self.measured[name].trained[setting].mean(1) for setting in self.settings], axis=1)

    def interquartile_mean(self, name: str) -> Estimate:
        """Over seeds and settings."""
        return interquartile_mean(self.runs(name))

    def improvement(self, name: str) -> Estimate:
        """The probability that a run is better than one of the baseline."""
        return probability_of_improvement(self.runs(name), self.runs(self.baseline))

    def levels(self) -> list[float]:
        """Validation values between the untrained network and the worst pipeline's best, which all reach."""
        curves = [of.validations.mean(0) for of in self.measured.values()]
        best = max if self.metric.higher_is_better else min
        worst = min if self.metric.higher_is_better else max
        start, end = best(float(curve[0]) for curve in curves), worst(float(best(curve)) for curve in curves)
        reached = (end > start) if self.metric.higher_is_better else (end < start)
        return [start + share * (end - start) for share in SHARES] if reached else []

    def reaching(self, name: str, level: float) -> int | None:
        """The outer steps to a level of validation, the median over seeds; None where most seeds do not reach it."""
        of = self.measured[name]
        steps = [first_reaching(of.steps, list(curve), level, self.metric.higher_is_better) for curve in of.validations]
        ordered = sorted(step if step is not None else float("inf") for step in steps)
        median = statistics.median_high(ordered)
        return None if median == float("inf") else int(median)

    def plain(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "metric": self.metric.name,
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "pipelines": {
                name: {
                    "interquartile_mean": vars(self.interquartile_mean(name)),
                    "probability_of_improvement": vars(self.improvement(name)),
                    "seconds_per_step": of.pace,
                    "validations": {"steps": of.steps, "values": of.validations.tolist()},
                    "steps_to": {f"{level:.4f}": self.reaching(name, level) for level in self.levels()},
                    "settings": {
                        setting: {
                            "untrained": of.untrained[setting].mean(1).tolist(),
                            "trained": of.trained[setting].mean(1).tolist(),
                            "difference": vars(self.difference(name, setting)),
                            "resolved": self.difference(name, setting).resolved,
                            "seeds_needed": self.needed(name, setting),
                        }
                        for setting in self.settings
                    },
                }
                for name, of in self.measured.items()
            },
        }


def collect(contenders: Sequence[Contender], runs: dict[str, dict[int, Path]]) -> Comparison:
    """The results of finished runs.

    Args:
        contenders: the pipelines, the baseline first.
        runs: run directories by pipeline and seed.

    Raises:
        RunError: a run was not measured in a setting that the others were, or on another number of episodes.
    """
    metric = contenders[0].pipeline.metric
    measured = {name: _measured(by_seed, metric) for name, by_seed in runs.items()}
    settings = [s for s in next(iter(measured.values())).trained if all(s in of.trained for of in measured.values())]
    for setting in settings:
        if len(counts := {of.trained[setting].shape for of in measured.values()}) > 1:
            raise RunError(f"{setting}: runs were measured on {' and '.join(f'{e} episodes with {s} seeds' for s, e in sorted(counts))}; compare equal ones")
    if not settings:
        raise RunError("compare: the runs have no measured setting in common; give them the same way, shot and readouts")
    return Comparison(metric, list(next(iter(runs.values()))), measured, settings)


def _measured(by_seed: dict[int, Path], metric: Metric) -> Measured:
    scores = [read_final_scores(run, metric).scores for run in by_seed.values()]
    values: dict[str, dict[str, Values]] = {
        weights: {setting: np.array([run[setting][weights].each for run in scores]) for setting in scores[0]} for weights in ("untrained", "best")
    }
    curves = [
        {line["step"]: line[f"val/{metric.name}"] for line in MetricLog(run / "metrics.jsonl").read() if f"val/{metric.name}" in line}
        for run in by_seed.values()
    ]
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    paces = [pace for run in by_seed.values() if (pace := pace_of(run)) is not None]
    validations = np.array([[curve[step] for step in steps] for curve in curves])
    return Measured(values["untrained"], values["best"], steps, validations, statistics.median(paces) if paces else None)


def lines(comparison: Comparison) -> list[str]:
    """The results as text."""
    metric, count, width = comparison.metric, len(comparison.seeds), _width(comparison)
    text = []
    for setting in comparison.settings:
        text += [f"test {setting}, {metric.name}{metric.unit}", f"  {'':<{width}}{'untrained':>10}{'trained':>16}    gain over {comparison.baseline}"]
        for name, of in comparison.measured.items():
            by_seed = of.trained[setting].mean(1)
            spread = metric.with_ci(by_seed.mean(), by_seed.std(ddof=1)) if count > 1 else metric.text(by_seed.mean())
            text.append(f"  {name:<{width}}{metric.text(of.untrained[setting].mean()):>10}{spread:>16}    {_difference(comparison, name, setting)}".rstrip())
    text.append(
        f"(trained: mean and standard deviation over {count} seed{'s' * (count > 1)}; differences: 95 % bootstrap interval over seeds and episodes, the same for all)"
    )
    text += ["", f"{'over all settings':<{width + 2}}{'interquartile mean':>26}{'better than ' + comparison.baseline:>34}"]
    sign = 1 if metric.higher_is_better else -1
    for name in comparison.measured:
        middle, improvement = comparison.interquartile_mean(name), comparison.improvement(name)
        low, high = sorted((sign * middle.low, sign * middle.high))
        chance = "" if name == comparison.baseline else f"{100 * improvement.value:.0f} % [{100 * improvement.low:.0f}, {100 * improvement.high:.0f}]"
        text.append(f"  {name:<{width}}{f'{metric.text(sign * middle.value)} [{metric.text(low)}, {metric.text(high)}]':>26}{chance:>34}".rstrip())
    return [*text, *_speed(comparison)]


def _width(comparison: Comparison, least: int = 24) -> int:
    """Of the column of names."""
    return max(least, *(len(name) for name in comparison.measured))


def _difference(comparison: Comparison, name: str, setting: str) -> str:
    if name == comparison.baseline:
        return ""
    metric, estimate = comparison.metric, comparison.difference(name, setting)
    text = f"{metric.text(estimate.value, '+')} [{metric.text(estimate.low, '+')}, {metric.text(estimate.high, '+')}]"
    if estimate.resolved:
        return f"{text} {'better' if estimate.value > 0 else 'worse'}"
    if estimate.value == estimate.low == estimate.high == 0:
        return f"{text} unresolved; equal on every episode"
    needed = comparison.needed(name, setting)
    if len(comparison.seeds) == 1:
        return f"{text} unresolved; one seed says nothing about others"
    return f"{text} unresolved" + (f"; about {needed} seeds would resolve it" if needed is not None else "; more seeds alone would not resolve it")


def _speed(comparison: Comparison) -> list[str]:
    levels, metric, width = comparison.levels(), comparison.metric, _width(comparison, 36)
    if not levels:
        return []
    text = ["", f"{'outer steps (seconds) to validation':<{width + 2}}" + "".join(f"{metric.text(level) + metric.unit:>18}" for level in levels)]
    for name, of in comparison.measured.items():
        cells = []
        for level in levels:
            step = comparison.reaching(name, level)
            seconds = f" ({step * of.pace:.0f} s)" if step is not None and of.pace is not None else ""
            cells.append(f"{'not reached' if step is None else f'{step}{seconds}':>18}")
        text.append(f"  {name:<{width}}{''.join(cells)}")
    return text
