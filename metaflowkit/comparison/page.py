"""The page of a comparison: one HTML file that opens offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence

import numpy as np

from metaflowkit.comparison.results import Comparison
from metaflowkit.config.metric import Metric

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222; background: #fff }
img { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f4f4f4; padding: 1em }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; padding: .3em .8em; border-bottom: 1px solid #ddd; white-space: nowrap }
"""


def page(comparison: Comparison, text: Sequence[str], commands: Sequence[str], pipelines: dict[str, str]) -> str:
    """The page.

    Args:
        comparison: the results.
        text: them as lines.
        commands: how to make it again.
        pipelines: the resolved pipelines, YAML by name.
    """
    title = " against ".join([*list(comparison.measured)[1:], comparison.baseline])
    parts = [
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style></head>\n<body><main><h1>{html.escape(title)}</h1>",
        *_tables(comparison),
        *(f"<h2>{html.escape(name)}</h2>\n<img alt='{html.escape(name)}' src='data:image/png;base64,{picture}'>" for name, picture in _curves(comparison)),
        f"<h2>All results as text</h2>\n<pre tabindex='0'>{html.escape(chr(10).join(text))}</pre>",
        f"<h2>To make it again</h2>\n<pre tabindex='0'>{html.escape(chr(10).join(commands))}</pre>",
        *(f"<details><summary>{html.escape(name)}</summary><pre tabindex='0'>{html.escape(yaml)}</pre></details>" for name, yaml in pipelines.items()),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _tables(comparison: Comparison) -> Iterator[str]:
    metric = comparison.metric
    for setting in comparison.settings:
        yield f"<h2>{html.escape(f'Test {metric.name}{metric.unit}, {setting}')}</h2>"
        head = ["pipeline", "untrained", *(f"seed {seed}" for seed in comparison.seeds), "mean", f"less {comparison.baseline}", ""]
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
        yield _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table tabindex='0'><thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr></thead>\n<tbody>{body}</tbody></table>"


def _curves(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Validation against outer steps, and against seconds where steps were timed."""
    if not any(of.steps for of in comparison.measured.values()):
        return
    yield "Validation by outer step", _curve(comparison, {name: 1.0 for name in comparison.measured}, "outer step")
    paces = {name: of.pace for name, of in comparison.measured.items() if of.pace is not None}
    if len(paces) == len(comparison.measured):
        yield "Validation by time", _curve(comparison, paces, "seconds of training (outer steps times their median duration)")


def _curve(comparison: Comparison, scale: dict[str, float], label: str) -> str:
    from matplotlib.figure import Figure

    metric: Metric = comparison.metric
    factor = 100 if metric.percent else 1
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, of in comparison.measured.items():
        x, values = scale[name] * np.array(of.steps), factor * of.validations
        (line,) = axes.plot(x, values.mean(0), marker=".", label=name)
        axes.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel=label, ylabel=f"validation {metric.name}{metric.unit}")
    axes.set_title("mean over seeds; the band reaches from the lowest to the highest", fontsize=9)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
