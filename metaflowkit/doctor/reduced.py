"""A pipeline reduced to the size in which it is checked."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow, build
from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.types import Pipeline
from metaflowkit.doctor.findings import Finding, fact, wrong
from metaflowkit.engines.base import MetaLearner
from metaflowkit.errors import ConfigError
from metaflowkit.seeding import generator_for
from metaflowkit.trees import tree_map
from metaflowkit.types import Episode, first_tasks, task_count

MOST = {"way": 3, "shot": 2, "query": 2, "meta_batch": 2, "horizon": 30}
LARGE = 1_000_000  # meta-parameters, above which one task of at most two inner steps is checked along one direction


def small(pipeline: Pipeline) -> Pipeline:
    """The same pipeline with few ways, views, tasks and inner steps, on the CPU."""
    settings = {key: min(value, MOST.get(key, value)) if isinstance(value, int) else value for key, value in pipeline.tasks.settings.items()}
    order = pipeline.inner.order
    tags = r.ORDERS.entries(pipeline.plugins)[order.name].tags
    steps = pipeline.inner.steps if tags["converges"] else min(pipeline.inner.steps, 3)
    if (key := tags["steps_in"]) is not None:
        order = dataclasses.replace(order, settings={**order.settings, key: min(order.settings[key], steps)})
    inner = dataclasses.replace(pipeline.inner, steps=steps, order=order)
    return dataclasses.replace(pipeline, device="cpu", tasks=dataclasses.replace(pipeline.tasks, settings=settings), inner=inner)


def built(pipeline: Pipeline) -> tuple[Flow, list[Finding]]:
    """The small pipeline built; where its order or engine is refused, that is a finding, and it is built without them.

    Raises:
        ConfigError: it cannot be built either way.
    """
    reduced = small(pipeline)
    try:
        return build(reduced), []
    except ConfigError as error:
        native = r.RULES.entries(pipeline.plugins)[reduced.inner.rule.name].tags["native"]
        engine = reduced.inner.engine if native else Choice("vectorized", {"chunk": 1, "workers": 1})
        fallback = dataclasses.replace(reduced, inner=dataclasses.replace(reduced.inner, order=Choice("first"), engine=engine, remat=False))
        try:
            flow = build(fallback)
        except ConfigError:
            raise error from None
        learner = dataclasses.replace(flow.learner, order=r.ORDERS.build(reduced.inner.order))
        return dataclasses.replace(flow, learner=learner), [wrong(problem) for problem in error.problems]


def doubled(flow: Flow) -> tuple[MetaLearner, Episode, list[Finding]]:
    """The learner and the tasks of the first step in float64, and notes on what was reduced."""
    flow.model.double().precision = "float64"
    learner, episode = flow.learner, in_double(flow.episode(1))
    size = sum(p.numel() for p in learner.model.parameters())
    ways = f"tasks of {episode.way} ways" if episode.way else f"{task_count(episode)} tasks"
    notes = [fact(f"{ways} in float64, {learner.steps} inner steps, {size:,} meta-parameters")]
    if size > LARGE:
        steps = min(learner.steps, 2) if learner.order.unrolled else learner.steps
        learner, episode = dataclasses.replace(learner, steps=steps), first_tasks(episode, 1)
        notes.append(fact(f"a large network: checked on one task, {steps} inner steps, along one direction"))
    return learner, episode, notes


def in_double(episode: Episode) -> Episode:
    """The same tasks with floating point numbers in float64, in the same memory layout."""
    support, query = tree_map(lambda x: x.double() if x.is_floating_point() else x, (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def rounded(learner: MetaLearner, episode: Episode, size: float) -> tuple[MetaLearner, Episode]:
    """Weights and inputs with relative noise of at most ``size``, as rounding them would give."""
    generator = generator_for(0, "doctor/rounding")

    def noisy(x: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        return x * (1 + size * (2 * noise - 1))

    model = copy.deepcopy(learner.model)
    model.load_state_dict({name: noisy(p) for name, p in learner.meta().items()}, strict=False)
    support, query = tree_map(lambda x: noisy(x) if x.is_floating_point() else x, (episode.support, episode.query))
    return dataclasses.replace(learner, model=model), episode._replace(support=support, query=query)
