"""The leave-one-out prototype loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.config.schema import Positive
from metaflowkit.distances import membership, similarity, unit
from metaflowkit.types import Outputs


@LOSSES.register("prototype")
class PrototypeLoss:
    """Each support example is classified by the prototypes of the others: mean_i -log softmax_k(s(z_i, c_k without i) / t)[y_i].

    Args:
        metric: ``cosine`` or ``euclidean`` (minus the squared distance).
        temperature: t; null for 0.1 with cosine and 1 with euclidean.

    Reference:
        J. Snell, K. Swersky, R. Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017, equation 2.
        Differs from the paper: the example itself is left out of its own prototype, since the support set is the only data.
    """

    needs_pairs = True

    def __init__(self, metric: Literal["cosine", "euclidean"] = "cosine", temperature: Positive | None = None) -> None:
        self.metric = metric
        self.temperature = temperature if temperature is not None else {"cosine": 0.1, "euclidean": 1.0}[metric]

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of features [n, D] whose labels [n] occur at least twice each."""
        z, way = outputs.features, outputs.logits.shape[1]
        members = membership(y, way).to(z.dtype)
        sums, counts = members.T @ z, members.sum(0)
        scores = similarity(z, sums / counts[:, None], self.metric)
        others = (sums[y] - z) / (counts[y] - 1)[:, None]
        own_score = (unit(z) * unit(others)).sum(1) if self.metric == "cosine" else -(z - others).square().sum(1)
        scores = torch.where(members.bool(), own_score[:, None], scores) / self.temperature
        return (scores.logsumexp(1) - own_score / self.temperature).mean()
