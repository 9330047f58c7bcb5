"""A plugin: prototypes of a projection of the embedding, which evaluation does without, as contrastive learning on large networks has it.

PYTHONPATH=benchmarks mfk run pipelines/cifar_fs_protoclr.yaml --set plugins=[projection_head] --set model.head=projected_prototype --set objective=query_loss
"""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from metaflowkit.config.registry import HEADS
from metaflowkit.config.schema import Similarity, Width
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.types import Labelled


@HEADS.register("projected_prototype")
class ProjectedPrototype(nn.Module):
    """Prototypes behind a hidden layer that is not part of the embedding.

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
