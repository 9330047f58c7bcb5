"""Cross-entropy with a learned weight for each example."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaflowkit.config.registry import LOSSES
from metaflowkit.types import Outputs


@LOSSES.register("example_weights")
class ExampleWeights(nn.Module):
    """Weighted cross-entropy: mean_i 2 sigmoid(a_i) (-log softmax(logits_i)[y_i]); the a_i are meta-parameters (``loss.weight``), 0 to begin with.

    A weight lies between 0 and 2, and is 1 before it is learned. The support set must be the same at every step.

    Args:
        examples: in the support set.

    Reference:
        L. Franceschi et al., Forward and Reverse Gradient-Based Hyperparameter Optimization, ICML 2017, section 5.1.
    """

    needs_pairs = False
    needs_fixed_support = True

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(examples))

    def forward(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of logits [n, N] and labels [n]."""
        return (2 * self.weight.sigmoid() * F.cross_entropy(outputs.logits, y, reduction="none")).mean()
