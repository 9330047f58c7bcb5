"""The supervised-contrastive loss with the image as label."""

from __future__ import annotations

from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.config.schema import Positive
from metaflowkit.distances import contrast
from metaflowkit.types import Outputs


@LOSSES.register("contrastive")
class Contrastive:
    """Views of an image attract each other and repel the rest: mean_i -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i.z_a / t)_p.

    Args:
        temperature: t; smaller looks at near neighbours more.

    Reference:
        P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2, with the source image as the label.
    """

    needs_pairs = True

    def __init__(self, temperature: Positive = 0.1) -> None:
        self.temperature = temperature

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of features [n, D] whose labels [n] occur at least twice each."""
        return contrast(outputs.features, y, self.temperature)
