"""The loss on the query set."""

from __future__ import annotations

from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.types import Adapted, Episode, scores_of


@OBJECTIVES.register("query_loss")
class QueryLoss:
    """The loss of the tasks on the query set, of the student: cross-entropy of classes, squared error, a policy gradient.

    With labelled tasks this is MAML, with views of unlabelled images UMTRA.

    Reference:
        C. Finn, P. Abbeel, S. Levine, Model-Agnostic Meta-Learning, ICML 2017, equation 4; S. Khodadadeh et al., NeurIPS 2019.
    """

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the criterion's metrics of the student, such as its query accuracy."""
        x, y = adapted.sample(adapted.params, 0)
        outputs = scores_of(adapted.call(adapted.params, x))
        return adapted.criterion.loss(outputs, y), adapted.criterion.metrics(outputs, y)
