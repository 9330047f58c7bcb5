"""Figures of a run from its metric log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflowkit.errors import printable
from metaflowkit.reporting.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THIN = 400  # points of a curve, at most
WINDOW = 10  # outer steps of the running mean
BEFORE, AFTER = "train/inner_loss_before", "train/inner_loss_after"
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
    """A small figure for every metric of the outer steps, by its name: the values, and their running mean. Inner losses between the first and the last step are one figure."""
    figures = {name: _metric_figure(name, *record.series(name)) for name in record.measured if not name.startswith(f"{AFTER}_")}
    steps, lines = record.pipeline.inner.steps, [line for line in record.lines if AFTER in line]
    if lines and steps > 1:
        figures["inner loss by inner step"] = _inner_loss_figure(lines, {BEFORE: 0, **{f"{AFTER}_{k}": k for k in range(1, steps)}, AFTER: steps})
    return figures


def _metric_figure(name: str, steps: list[int], values: list[float]) -> Figure:
    figure, axes = _small_figure(metric_title(name))
    stride, many = max(1, len(steps) // THIN), len(steps) >= 2 * WINDOW
    axes.plot(steps[::stride], values[::stride], linewidth=0.8, color="0.6" if many else "C0", marker="" if many else "o", markersize=3)
    if many:
        means = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(WINDOW, i + 1) for i in range(len(values))]
        axes.plot(steps[::stride], means[::stride], color="C0")
    if min(values, default=0) > 0 and max(values) > SPANS * min(values):
        axes.set_yscale("log")
    return figure


def _inner_loss_figure(lines: Sequence[Mapping[str, Any]], inner_steps: Mapping[str, int]) -> Figure:
    """The inner loss against the inner steps, where it was measured first and last."""
    figure, axes = _small_figure("inner loss by inner step")
    for line in [lines[0], lines[-1]][: len(lines)]:
        shown = [name for name in inner_steps if isinstance(line.get(name), int | float) and math.isfinite(line[name])]
        axes.plot([inner_steps[name] for name in shown], [line[name] for name in shown], marker="o", markersize=3, label=f"outer step {line['step']}")
    axes.legend(fontsize=8)
    return figure


def _small_figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.2, 2.3))
    figure.subplots_adjust(left=0.19, right=0.97, top=0.88, bottom=0.13)  # a layout by measuring every text takes as long as the drawing
    axes = figure.add_subplot()
    axes.set_title(label(title), fontsize=10)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return figure, axes


def metric_title(name: str) -> str:
    """The name of a metric of outer steps in words."""
    return name.removeprefix("train/").replace("_", " ")
