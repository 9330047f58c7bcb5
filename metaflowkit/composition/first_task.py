"""A flow run once on one task, before a run writes anything: what only a call shows of a component is refused here."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.contract import kind_of
from metaflowkit.engines.recomputation import no_recomputation
from metaflowkit.errors import BrokenContract, ConfigError
from metaflowkit.seeding import seeded
from metaflowkit.types import Labelled, first_tasks

PATHS = {"inner loss": "inner.loss", "rule": "inner.rule", "order": "inner.order", "engine": "inner.engine", "sample": "tasks"}
"""Of roles that are called otherwise in Python than in a pipeline."""


def check_first_task(flow: Flow) -> None:
    """Call backbone and head on noise, and take the meta-gradient of the first task.

    Raises:
        ConfigError: a component returns something that its contract excludes, or the backbone calls ``torch.utils.checkpoint``.
    """
    model = flow.model
    like = next(model.parameters())
    try:
        with torch.enable_grad(), no_recomputation(), seeded(0, like.device), TaskBuffers(model).within(model):
            _check_model(flow, like)
        flow.learner.outcome(first_tasks(flow.episode(1), 1))
    except BrokenContract as error:
        raise ConfigError(f"{flow.pipeline.place(PATHS.get(error.role, error.role))}: {error.text}") from None
    except ValueError as error:
        raise ConfigError(f"{flow.pipeline.place('tasks')}: {error}") from error


def _check_model(flow: Flow, like: Tensor) -> None:
    """The shapes of features and scores."""
    way, few_shot, model = flow.interface.way, flow.interface.few_shot, flow.model
    count = max(way, 2) if few_shot else 2
    x = flow.interface.noise(count).to(like.device)
    features, size = model.backbone(x.to(like.dtype) if x.is_floating_point() else x), model.backbone.features
    if not (isinstance(features, Tensor) and features.shape == (count, size)):
        text = f"must return features [n, {size}], as its attribute features says, got {kind_of(features)} for {count} examples"
        raise BrokenContract("model.backbone", type(model.backbone).__name__, text)
    support = Labelled(features, torch.arange(count, device=like.device) % way) if few_shot else None
    scores = model.head(features, support, way)
    if not (isinstance(scores, Tensor) and scores.dim() == 2 and len(scores) == count and (scores.shape[1] == way or not few_shot)):
        text = f"must return scores [n, {way if few_shot else 'N'}], got {kind_of(scores)} for {count} examples"
        raise BrokenContract("model.head", type(model.head).__name__, text)
