"""Cross-entropy of the head's scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metaflowkit.config.registry import LOSSES
from metaflowkit.types import Outputs


@LOSSES.register("cross_entropy")
class CrossEntropy:
    """Cross-entropy of the head's scores on the support set: mean_i -log softmax(logits_i)[y_i]."""

    needs_pairs = False

    def __call__(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss, scalar, of logits [n, N] and labels [n]."""
        return F.cross_entropy(outputs.logits, y)
