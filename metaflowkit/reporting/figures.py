"""Figures of a run from its metric log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaflowkit.errors import printable
from metaflowkit.reporting.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THIN = 400  # points of a curve, at most
WINDOW = 10  # outer steps of the running mean
SPANS = 30  # ratio of the largest to the smallest value from which on the axis is logarithmic


def label(text: str) -> str:
    """A text as matplotlib shows it letter by letter: not as mathematics, and in a legend even where it begins with an underscore."""
    escaped = printable(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def validation_figure(records: Sequence[RunRecord]) -> Figure | None:
    """Validation by outer step with its 95 % interval, a curve for each run; None where no run has validated."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for record in records:
        metric = record.pipeline.metric
        factor = 100 if metric.percent else 1
        steps, values = record.series(f"val/{metric.name}")
        _, intervals = record.series("val/ci95")
        if not steps:
            continue
        values, intervals = [factor * value for value in values], [factor * value for value in intervals]
        (line,) = axes.plot(steps, values, marker="o", markersize=3, label=label(record.name))
        low, high = ([value + sign * interval for value, interval in zip(values, intervals)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(values[0], linestyle=":", color=line.get_color(), linewidth=1)
        axes.set_ylabel(f"validation {metric.name}{metric.unit}")
    if not axes.lines:
        return None
    axes.set_xlabel("outer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("band: 95 % interval; dotted: before training", fontsize=9)
    if len(records) > 1:
        axes.legend()
    return figure


def metric_figures(record: RunRecord) -> dict[str, Figure]:
    """A small figure for every metric of the outer steps, by its name: the values, and their running mean."""
    return {name: _metric_figure(name, *record.series(name)) for name in record.measured}


def _metric_figure(name: str, steps: list[int], values: list[float]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.2, 2.3))
    figure.subplots_adjust(left=0.19, right=0.97, top=0.88, bottom=0.13)  # a layout by measuring every text takes as long as the drawing
    axes = figure.add_subplot()
    stride, many = max(1, len(steps) // THIN), len(steps) >= 2 * WINDOW
    axes.plot(steps[::stride], values[::stride], linewidth=0.8, color="0.6" if many else "C0", marker="" if many else "o", markersize=3)
    if many:
        means = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(WINDOW, i + 1) for i in range(len(values))]
        axes.plot(steps[::stride], means[::stride], color="C0")
    if min(values, default=0) > 0 and max(values) > SPANS * min(values):
        axes.set_yscale("log")
    axes.set_title(label(metric_title(name)), fontsize=10)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return figure


def metric_title(name: str) -> str:
    """The name of a metric of outer steps in words."""
    return name.removeprefix("train/").replace("_", " ")
