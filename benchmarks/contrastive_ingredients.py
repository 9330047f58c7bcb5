"""A plugin with two ingredients of contrastive learning that cost points here (RESULTS.md): a projection of the embedding, and a queue of earlier prototypes.

PYTHONPATH=benchmarks mfk run pipelines/cifar_fs_protoclr.yaml --set plugins=[contrastive_ingredients] --set model.head=projected_prototype --set objective=query_loss
PYTHONPATH=benchmarks mfk run pipelines/cifar_fs_protoclr.yaml --set plugins=[contrastive_ingredients] --set objective=queued_prototypes
"""

from __future__ import annotations

from collections import deque

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metaflowkit.config.registry import HEADS, OBJECTIVES
from metaflowkit.config.schema import Count, Similarity, Width
from metaflowkit.criteria import accuracy
from metaflowkit.distances import prototypes, similarity
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.types import Adapted, Episode, Labelled


@HEADS.register("projected_prototype")
class ProjectedPrototype(nn.Module):
    """Prototypes behind a hidden layer that is not part of the embedding, which evaluation takes.

    Args:
        features: D.
        width: of the hidden layer and of the projection.
        metric: of the prototypes.

    Reference:
        T. Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, section 4.2.
    """

    def __init__(self, features: int, width: Width = 256, metric: Similarity = "semi_normalised") -> None:
        super().__init__()
        self.metric = metric
        self.project = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        self.prototype = Prototype(metric)

    def forward(self, features: Tensor, support: Labelled, way: int) -> Tensor:
        """Scores [n, N] of features [n, D]."""
        scores: Tensor = self.prototype(self.project(features), support._replace(x=self.project(support.x)), way)
        return scores


@OBJECTIVES.register("queued_prototypes")
class QueuedPrototypes:
    """Query views are classified by the prototypes of their task and those of the tasks before it, which are wrong answers without gradient.

    An experiment, for one process with one task in each outer step: the queue is no part of checkpoints.

    Args:
        tasks: whose prototypes are kept.

    Reference:
        K. He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, section 3.2; here without its momentum encoder.
    """

    needs_classes = True

    def __init__(self, tasks: Count = 2) -> None:
        self.queue: deque[Tensor] = deque(maxlen=tasks)

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the accuracy of the task's own prototypes on the query views."""
        (support, support_y), (query, y) = task.support, task.query
        z = adapted.features(adapted.params, torch.cat([support, query]))
        own = prototypes(z[: len(support)], support_y, task.way)
        scores = similarity(z[len(support) :], torch.cat([own, *self.queue]), "semi_normalised")
        self.queue.append(own.detach())
        return F.cross_entropy(scores, y), {"accuracy": accuracy(scores[:, : task.way].detach(), y)}
