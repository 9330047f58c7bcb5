"""Cross-entropy on the query set."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.objectives.accuracy import accuracy
from metaflowkit.types import Adapted, Episode, scores_of


@OBJECTIVES.register("query_loss")
class QueryLoss:
    """Cross-entropy of the student on the query set: mean_i -log softmax(logits_i)[y_i].

    With labelled tasks this is MAML, with views of unlabelled images UMTRA.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, equation 4; S. Khodadadeh et al., NeurIPS 2019.
    """

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the student's query accuracy."""
        x, y = task.query
        scores = scores_of(adapted.call(adapted.params, x))
        return F.cross_entropy(scores, y), {"accuracy": accuracy(scores, y)}
