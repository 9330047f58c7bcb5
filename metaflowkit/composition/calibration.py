"""The statistics that batch normalisation stores."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.engines.auto import simplest
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.kernels import FastKernels
from metaflowkit.engines.safety import exact_convolutions, without_dropout
from metaflowkit.errors import ConfigError
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.stages import stage
from metaflowkit.types import Episode

CALIBRATION = 8  # batches of tasks that the statistics are computed from


@torch.no_grad()
def calibrate(learner: MetaLearner, episodes: Iterable[Episode], start: bool) -> None:
    """Compute the statistics that normalisation layers store, from training tasks under the current weights.

    Args:
        learner: its model has the layers; without any, nothing is done and no episode is drawn.
        episodes: batches of training tasks.
        start: whether these are the untrained weights, whose statistics frozen layers keep.
    """
    norms = [norm for norm in stored_norms(learner.model) if start or not norm.frozen]
    if not norms:
        return
    if learner.sample is not None:
        raise ConfigError("model.backbone.norm: statistics cannot be stored where examples are drawn with the current parameters; choose batch or group")
    for norm in norms:
        norm.records = []
    engine = simplest(learner.rule)
    stepwise = not all(norm.frozen for norm in norms)
    with stage("computing the statistics of normalisation", CALIBRATION) as advance:
        for episode in episodes:
            if stepwise:
                engine.adapt(learner, episode.support, episode, query_scores)
            else:
                with exact_convolutions(), without_dropout(learner.model), TaskBuffers(learner.model).within(learner.model), FastKernels(second=False):
                    learner.model.get_submodule("backbone")(torch.cat([episode.support[0], episode.query[0]], 1).flatten(0, 1))
            advance()
    for norm in norms:
        norm.store_records()
