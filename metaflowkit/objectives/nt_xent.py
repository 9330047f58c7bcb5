"""The contrastive objective of SimCLR on all views of a task."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Decay, Positive
from metaflowkit.distances import contrast
from metaflowkit.types import Adapted, Episode


@OBJECTIVES.register("nt_xent")
class NTXent:
    """Normalised temperature-scaled cross-entropy: views of an image find each other among all views of the task.

    mean_i -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i.z_a / t)_p, with the support and query views embedded together; with
    ``tasks.shot: 1`` and ``tasks.query: 1`` an image has two views, as in SimCLR.

    Args:
        temperature: t.
        same_class: share of the other images that are of the same true class; see :class:`metaflowkit.losses.contrastive.Contrastive`.

    Reference:
        T. Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, equation 1; with more than two
        views P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2; ``same_class``: C.-Y. Chuang et al., Debiased Contrastive Learning, NeurIPS 2020.
    """

    needs_classes = True

    def __init__(self, temperature: Positive = 0.5, same_class: Decay = 0.0) -> None:
        self.temperature, self.same_class = temperature, same_class

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and no metric.

        Raises:
            ValueError: the model returns no embeddings.
        """
        x, y = (torch.cat([support, query]) for support, query in zip(task.support, task.query))
        return contrast(adapted.features(adapted.params, x), y, self.temperature, self.same_class), {}
