"""The measurements of a run: validation between its outer steps, tests at its end, and their protocol."""

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
    statistics = settings.statistics_in_turn()[0]
    (score,) = evaluate(cast(FewShotFlow, flow), "val", way, shot, settings.query, settings.val_episodes, settings.readouts[:1], statistics)
    return score


def check_readouts(flow: Flow, tested: bool) -> None:
    """Use each readout on two episodes, so that one which fails does so before a run and not at its end.

    Args:
        flow: a built pipeline.
        tested: whether the run ends with test episodes.

    Raises:
        ConfigError: a readout returns something that its contract excludes.
    """
    settings = flow.pipeline.evaluate
    splits = [split for split in ("val", "test") if flow.has(split) and (tested or split == "val")]
    if flow.measured or not splits:
        return
    way, shot = settings.settings()[0]
    for statistics in settings.statistics_in_turn():
        evaluate(cast(FewShotFlow, flow), splits[0], way, shot, settings.query, 2, settings.readouts if tested else settings.readouts[:1], statistics)


def measurements(flow: Flow, split: str = "test", before_each: Callable[[], None] = lambda: None) -> Iterator[list[Score]]:
    """All measurements of the section ``evaluate``, the scores of one way and shot after the other; none where nothing is held out.

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
        for statistics in settings.statistics_in_turn():
            before_each()
            yield evaluate(cast(FewShotFlow, flow), split, way, shot, settings.query, settings.episodes, settings.readouts, statistics)


def protocol(flow: Flow, readouts: Iterable[str] | None = None, drawn: bool = True) -> str:
    """The protocol of the measurements, in words.

    Args:
        flow: with the weights that were measured.
        readouts: of few-shot classification; None for those of the pipeline.
        drawn: whether the episodes were drawn, and not given as files.
    """
    settings = flow.pipeline.evaluate
    phrases = []
    if flow.measured:
        return f"{flow.pipeline.metric.name} after inner steps; held-out tasks are drawn with seed {settings.seed}"
    if "stored" in settings.statistics_in_turn():
        phrases.append(normalisation(flow.model, flow.interface))
    if "current" in settings.statistics_in_turn():
        phrases.append("with current statistics, batch normalisation uses those of the current set (transductive)")
    entries = READOUTS.entries(flow.pipeline.plugins)
    for name in [choice.name for choice in settings.readouts] if readouts is None else readouts:
        if entries[name].tags["adapts"]:
            views = evaluation_views(flow.pipeline)
            support = f"{views} augmented views of each support image" if views else "the support images"
            phrases.append(f"{name!r} takes {flow.pipeline.inner.steps} inner steps on {support}")
    phrases += dict.fromkeys(examples.note for examples in flow.splits.values() if examples.note)
    return "; ".join([*phrases, *([f"episodes are drawn with seed {settings.seed}"] if drawn else [])])
