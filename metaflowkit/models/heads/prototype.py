"""The nearest-prototype head."""

from __future__ import annotations

from torch import Tensor, nn

from metaflowkit.config.registry import HEADS
from metaflowkit.config.schema import Positive, Similarity
from metaflowkit.distances import default_temperature, prototypes, similarity
from metaflowkit.types import Labelled


@HEADS.register("prototype")
class Prototype(nn.Module):
    """Scores by nearness to the mean support embedding of each class: logits = s(f(x), c_k) / temperature.

    Args:
        metric: ``cosine`` similarity, ``euclidean`` for minus the squared distance, or ``semi_normalised`` for the product with the class mean scaled to
            length one.
        temperature: divides the similarities; null for 0.1 with cosine and 1 with the others.

    Reference:
        J. Snell, K. Swersky, R. Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017, equations 1 and 2.
    """

    reads_support = True
    fixed_way = False

    def __init__(self, metric: Similarity = "cosine", temperature: Positive | None = None) -> None:
        super().__init__()
        self.metric = metric
        self.temperature = default_temperature(metric, temperature)

    def forward(self, features: Tensor, support: Labelled, way: int) -> Tensor:
        """Scores [n, N] of features [n, D], given embedded support examples [m, D] with labels [m]."""
        return similarity(features, prototypes(support.x, support.y, way), self.metric) / self.temperature
