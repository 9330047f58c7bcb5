"""The prototypical contrastive objective on all views of a task."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Positive, Similarity
from metaflowkit.criteria import accuracy
from metaflowkit.distances import default_temperature, prototypes, similarity
from metaflowkit.types import Adapted, Episode


@OBJECTIVES.register("prototype_contrastive")
class PrototypeContrastive:
    """Query views are classified by the mean embedding of the support views of each image: mean_i -log softmax_k(s(z_i, c_k) / t)[y_i].

    All views of a task are embedded together, so that normalisation sees one set. The tasks' own loss with the head ``prototype``
    (``query_loss``) is the same, with support and query embedded apart. Without inner steps (``inner.steps: 0``) it is ProtoCLR.

    Args:
        metric: see :func:`metaflowkit.distances.similarity`.
        temperature: t; null for 0.1 with cosine and 1 with the others.

    Reference:
        C. Medina, A. Devos, M. Grossglauser, Self-Supervised Prototypical Transfer Learning for Few-Shot Classification, 2020, equation 1.
    """

    needs_classes = True

    def __init__(self, metric: Similarity = "euclidean", temperature: Positive | None = None) -> None:
        self.metric = metric
        self.temperature = default_temperature(metric, temperature)

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the accuracy of the prototypes on the query views.

        Raises:
            ValueError: the model returns no embeddings.
        """
        (support, support_y), (query, y) = task.support, task.query
        z = adapted.features(adapted.params, torch.cat([support, query]))
        centres = prototypes(z[: len(support)], support_y, task.way)
        scores = similarity(z[len(support) :], centres, self.metric) / self.temperature
        return torch.nn.functional.cross_entropy(scores, y), {"accuracy": accuracy(scores.detach(), y)}
