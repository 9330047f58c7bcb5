"""The leave-one-out prototype loss."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.config.schema import Positive, Similarity
from metaflowkit.distances import default_temperature, membership, similarity, unit
from metaflowkit.types import Outputs


@LOSSES.register("prototype")
class PrototypeLoss:
    """Each support example is classified by the prototypes of the others: mean_i -log softmax_k(s(z_i, c_k without i) / t)[y_i].

    Args:
        metric: see :func:`metaflowkit.distances.similarity`.
        temperature: t; null for 0.1 with cosine and 1 with the others.

    Reference:
        J. Snell, K. Swersky, R. Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017, equation 2.
        Differs from the paper: the example itself is left out of its own prototype, since the support set is the only data.
    """

    needs_pairs = True

    def __init__(self, metric: Similarity = "cosine", temperature: Positive | None = None) -> None:
        self.metric = metric
        self.temperature = default_temperature(metric, temperature)

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of features [n, D] whose labels [n] occur at least twice each."""
        z, way = outputs.features, outputs.logits.shape[1]
        members = membership(y, way).to(z.dtype)
        sums, counts = members.T @ z, members.sum(0)
        scores = similarity(z, sums / counts[:, None], self.metric)
        others = (sums[y] - z) / (counts[y] - 1)[:, None]
        own_score = -(z - others).square().sum(1) if self.metric == "euclidean" else ((unit(z) if self.metric == "cosine" else z) * unit(others)).sum(1)
        scores = torch.where(members.bool(), own_score[:, None], scores) / self.temperature
        return (scores.logsumexp(1) - own_score / self.temperature).mean()
