"""What a run measures: validation between its outer steps, tests at its end, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from metaflowkit.composition.flow import FewShotFlow, Flow
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.registry import READOUTS
from metaflowkit.evaluation.adaptation import evaluate_adaptation
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.protocol import normalisation
from metaflowkit.evaluation.scores import Score


def validate(flow: Flow) -> Score | None:
    """The score that a run chooses its weights by; None where nothing is held out for validation."""
    settings = flow.pipeline.evaluate
    if not flow.has("val"):
        return None
    if flow.measured:
        (score,) = evaluate_adaptation(flow, "val", settings.shots()[0], [flow.pipeline.inner.steps], settings.val_episodes)
        return score
    way, shot = settings.settings()[0]
    (score,) = evaluate(cast(FewShotFlow, flow), "val", way, shot, settings.query, settings.val_episodes, settings.readouts[:1])
    return score


def measurements(flow: Flow, split: str = "test", before_each: Callable[[], None] = lambda: None) -> Iterator[list[Score]]:
    """All that ``evaluate`` asks for, the scores of one way and shot after the other; nothing where nothing is held out.

    Args:
        flow: with the weights to measure.
        split: what is measured on.
        before_each: called before each way and shot; what it raises ends the measurement.
    """
    settings = flow.pipeline.evaluate
    if flow.measured:
        for shot in settings.shots():
            before_each()
            yield evaluate_adaptation(flow, split, shot, settings.steps or [flow.pipeline.inner.steps], settings.episodes)
        return
    for way, shot in settings.settings():
        before_each()
        yield evaluate(cast(FewShotFlow, flow), split, way, shot, settings.query, settings.episodes, settings.readouts)


def protocol(flow: Flow, readouts: Iterable[str] | None = None) -> str:
    """What a reader must know beside the figures.

    Args:
        flow: with the weights that were measured.
        readouts: of few-shot classification; None for those of the pipeline.
    """
    settings = flow.pipeline.evaluate
    facts = []
    if flow.measured:
        return f"{flow.pipeline.metric.name} after inner steps; held-out tasks are drawn with seed {settings.seed}"
    facts.append(normalisation(flow.model, flow.interface))
    entries = READOUTS.entries(flow.pipeline.plugins)
    for name in [choice.name for choice in settings.readouts] if readouts is None else readouts:
        if entries[name].tags["adapts"]:
            views = evaluation_views(flow.pipeline)
            shown = f"{views} augmented views of each support image" if views else "the support images"
            facts.append(f"{name!r} takes {flow.pipeline.inner.steps} inner steps on {shown}")
    facts += dict.fromkeys(examples.note for examples in flow.splits.values() if examples.note)
    return "; ".join([*facts, f"episodes are drawn with seed {settings.seed}"])
