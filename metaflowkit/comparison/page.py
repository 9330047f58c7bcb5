"""The page of a comparison: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from metaflowkit.comparison.results import Comparison
from metaflowkit.config.metric import Metric
from metaflowkit.reporting import html as frame
from metaflowkit.reporting.figures import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = "outer step"


def page(comparison: Comparison, text: Sequence[str], commands: Sequence[str], pipelines: dict[str, str]) -> str:
    """The page.

    Args:
        comparison: the results.
        text: them as lines.
        commands: how to make it again.
        pipelines: the resolved pipelines, YAML by name.
    """
    title = f"{' and '.join(list(comparison.measured)[1:])} against {comparison.baseline}"
    parts = [
        *_tables(comparison),
        *_curves(comparison),
        frame.heading("All results as text"),
        frame.preformatted(text),
        frame.heading("To make it again"),
        frame.preformatted(commands),
        *(frame.folded(name, yaml) for name, yaml in pipelines.items()),
    ]
    return frame.page(title, parts)


def _tables(comparison: Comparison) -> Iterator[str]:
    metric = comparison.metric
    for setting in comparison.settings:
        yield frame.heading(f"Test {metric.name}{metric.unit}, {setting}")
        head = ["pipeline", "untrained", *(f"seed {seed}" for seed in comparison.seeds), "mean", f"gain over {comparison.baseline}", ""]
        rows = []
        for name, of in comparison.measured.items():
            by_seed = of.trained[setting].mean(1)
            cells = [name, metric.text(of.untrained[setting].mean()), *(metric.text(value) for value in by_seed), metric.text(by_seed.mean())]
            if name == comparison.baseline:
                rows.append([*cells, "", "baseline"])
                continue
            estimate = comparison.difference(name, setting)
            verdict = "unresolved" if not estimate.resolved else "better" if estimate.value > 0 else "worse"
            rows.append([*cells, f"{metric.text(estimate.value, '+')} [{metric.text(estimate.low, '+')}, {metric.text(estimate.high, '+')}]", verdict])
        yield frame.table(head, rows)


def _curves(comparison: Comparison) -> Iterator[str]:
    """Validation against outer steps, and against seconds where steps were timed."""
    if not any(of.steps for of in comparison.measured.values()):
        return
    yield frame.picture("Validation by outer step", _curve(comparison, {name: 1.0 for name in comparison.measured}, STEPS))
    paces = {name: of.pace for name, of in comparison.measured.items() if of.pace is not None}
    if len(paces) == len(comparison.measured):
        yield frame.picture("Validation by time", _curve(comparison, paces, "seconds of training (outer steps times their median duration)"))


def _curve(comparison: Comparison, scale: dict[str, float], xlabel: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    metric: Metric = comparison.metric
    factor = 100 if metric.percent else 1
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, of in comparison.measured.items():
        x, values = scale[name] * np.array(of.steps), factor * of.validations
        (line,) = axes.plot(x, values.mean(0), marker=".", label=label(name))
        axes.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=xlabel == STEPS))
    axes.set(xlabel=xlabel, ylabel=f"validation {metric.name}{metric.unit}")
    axes.set_title("mean over seeds; the band reaches from the lowest to the highest", fontsize=9)
    axes.legend()
    return figure
