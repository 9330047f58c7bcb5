"""The supervised-contrastive loss with the image as label."""

from __future__ import annotations

from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.config.schema import Decay, Positive
from metaflowkit.distances import contrast
from metaflowkit.types import Outputs


@LOSSES.register("contrastive")
class Contrastive:
    """Views of an image attract each other and repel the rest: mean_i -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i.z_a / t)_p.

    Args:
        temperature: t; smaller looks at near neighbours more.
        same_class: share of the other images that are of the same true class, such as 1 / classes; their estimated part is subtracted
            (see :func:`metaflowkit.distances.contrast`). Of use where the data have few classes, so that pseudo-classes collide.

    Reference:
        P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2, with the source image as the label; ``same_class``:
        C.-Y. Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, equation 8.
    """

    needs_pairs = True

    def __init__(self, temperature: Positive = 0.1, same_class: Decay = 0.0) -> None:
        self.temperature, self.same_class = temperature, same_class

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of features [n, D] whose labels [n] occur at least twice each."""
        return contrast(outputs.features, y, self.temperature, self.same_class)
