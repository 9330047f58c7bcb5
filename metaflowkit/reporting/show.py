"""What ``mfk show`` prints: every setting of a pipeline and where it comes from, the way of the data, and what a run costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metaflowkit.composition.augmentation import operations
from metaflowkit.composition.cost import StepCost, step_cost
from metaflowkit.composition.flow import FewShotFlow, Flow, build
from metaflowkit.config.choice import Choice
from metaflowkit.config.types import Pipeline
from metaflowkit.config.yaml import to_yaml
from metaflowkit.errors import DataError
from metaflowkit.types import task_count

DEFAULT = "default"


def show(pipeline: Pipeline) -> Iterator[str]:
    """The lines of ``mfk show``.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.

    Yields:
        The settings as YAML with their origins, then, where the data can be read, the data flow and the cost of a run.

    Raises:
        ConfigError: the pipeline cannot be built.
    """
    yield from settings(pipeline)
    yield ""
    try:
        flow = build(pipeline)
    except DataError as error:
        yield f"data flow and cost are not shown, since the data cannot be read: {error}"
        return
    yield from data_flow(flow)
    yield cost_of_run(pipeline, step_cost(flow))


def plain(pipeline: Pipeline) -> dict[str, Any]:
    """The same as JSON values; ``cost`` is null where the data cannot be read.

    Raises:
        ConfigError: the pipeline cannot be built.
    """
    result: dict[str, Any] = {"settings": pipeline.plain(), "origins": dict(pipeline.places), "data_flow": [], "cost": None}
    try:
        flow = build(pipeline)
    except DataError:
        return result
    return {**result, "data_flow": data_flow(flow), "cost": vars(step_cost(flow))}


def settings(pipeline: Pipeline) -> list[str]:
    """Every setting on a line, as YAML, with where it was set: file, line and column, an override, or the default."""
    lines = list(_settings(pipeline.plain(), "", pipeline.places))
    width = min(72, max(len(text) for text, _ in lines))
    return [f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines]


def _settings(node: Mapping[str, Any], path: str, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    indent = "  " * path.count(".")
    for key, value in node.items():
        place = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", ""
            yield from _settings(value, f"{place}.", places)
        else:
            text = to_yaml(value, one_line=True).removesuffix("...\n").strip()
            yield f"{indent}{key}: {text}", _origin(place, places)


def _origin(place: str, places: Mapping[str, str]) -> str:
    """Where a setting was written; a component's bare name is at its own key."""
    if place in places:
        return places[place]
    above, _, key = place.rpartition(".")
    inside = any(other.startswith(f"{above}.") for other in places)
    return places[above] if key == "name" and above in places and not inside else DEFAULT


def data_flow(flow: Flow) -> list[str]:
    """The way of the data through the pipeline, a line for each station."""
    pipeline, learner = flow.pipeline, flow.learner
    episode = flow.episode(1)
    inner, objective = pipeline.inner, pipeline.objective
    parameters = dict(flow.model.named_parameters())
    total, trained = (sum(p.numel() for p in of.values()) for of in (parameters, flow.learner.trained(parameters)))
    counts = f"{total:,} parameters" + f", {trained:,} of them trained" * (trained < total)
    steps = f"{inner.steps} inner step{'s' * (inner.steps > 1)} of {inner.rule.name} on {inner.loss.name}, {inner.order.name} order; engine {learner.engine.description}"
    lines = [
        flow.description(),
        f"{task_count(episode)} tasks ({pipeline.tasks.name}), {flow.examples_in(episode):,} {flow.unit} in an outer step",
        *([f"augmentation: {_augmentation(flow)}"] if isinstance(flow, FewShotFlow) else []),
        f"{pipeline.model.backbone.name} and head {pipeline.model.head.name}: {counts}",
        steps if inner.steps else "no inner steps",
        f"{objective.name}{_further(objective)}",
        f"{pipeline.outer.optimizer.name}, {pipeline.outer.steps:,} outer steps",
    ]
    return [("-> " if i else "") + line for i, line in enumerate(lines)]


def _augmentation(flow: FewShotFlow) -> str:
    chosen = operations(flow.pipeline, next(iter(flow.splits.values()))) if flow.splits else []
    level = flow.pipeline.augment.level
    return (f"level {level}: " if level is not None else "") + (", ".join(choice.name for choice in chosen) or "none")


def _further(objective: Choice) -> str:
    delta = objective.settings.get("delta")
    return f" toward {delta} further steps" if delta is not None else ""


def cost_of_run(pipeline: Pipeline, cost: StepCost) -> str:
    """Time, memory and operations of an outer step, and the time of all of them."""
    minutes = cost.seconds * pipeline.outer.steps / 60
    whole = f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"
    return (
        f"an outer step takes {cost}, and {cost.operations / 1e9:,.3g} billion operations; {pipeline.outer.steps:,} of them take about {whole}, "
        "without validation"
    )
