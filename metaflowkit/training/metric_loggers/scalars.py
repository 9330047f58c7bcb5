"""The numbers of an event, by name and step."""

from __future__ import annotations

import math

from metaflowkit.training.events import Event, Finished, Stepped, Validated


def scalars(event: Event) -> tuple[int, dict[str, float]] | None:
    """The outer step of an event and its metrics; None where it has none. Those of the end are test scores: means, and half widths of their 95 % intervals."""
    if isinstance(event, Stepped):
        metrics = dict(event.metrics)
    elif isinstance(event, Validated):
        metrics = {f"val/{event.score.metric.name}": event.score.value, "val/ci95": event.score.ci95}
    elif isinstance(event, Finished):
        scores = [(weights, score) for weights, scores in (("untrained", event.before), ("trained", event.after)) for score in scores]
        metrics = {f"{s.split}/{s.setting.short}/{weights}": s.value for weights, s in scores}
        metrics |= {f"{s.split}/{s.setting.short}/{weights} ci95": s.ci95 for weights, s in scores}
    else:
        return None
    step = event.flow.pipeline.outer.steps if isinstance(event, Finished) else event.step
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return (step, finite) if finite else None
