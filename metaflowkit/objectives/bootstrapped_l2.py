"""The bootstrapped objective in the space of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Decay, InnerSteps, Natural
from metaflowkit.objectives.target import Target, require_steps
from metaflowkit.types import Adapted, Episode, scores_of


@OBJECTIVES.register("bootstrapped_l2")
class BootstrappedL2:
    """Squared distance between the parameters of the target (delta steps further, no gradient) and of the student: sum_j (w~_j - w_j)^2.

    Its scale follows the inner learning rate, so the outer one must be chosen anew for an outer optimiser to which scale matters. With delta = 1, grounded, and
    steps w~ = w - lr g of plain SGD the gradient is that of ``query_loss`` times 2 lr; further inner steps add theirs.

    Args:
        delta: steps from the student to its target.
        grounded: take the last of the delta steps on the loss of the tasks, on the query.
        last_delta: delta at the last outer step, to which it changes linearly; null keeps it.
        outer_steps: of the run.
        ema: decay of a moving average of the initialisation over the outer steps; the target then starts from this average, by the student's
            inner steps. Null starts it from the student.

    Reference:
        S. Flennerhag et al., Bootstrapped Meta-Learning, ICLR 2022, section 4.
    """

    def __init__(
        self, delta: InnerSteps = 5, grounded: bool = True, last_delta: InnerSteps | None = None, outer_steps: Natural = 0, ema: Decay | None = None
    ) -> None:
        require_steps(delta, last_delta, grounded)
        self.target = Target(delta, grounded, last_delta, outer_steps, ema)
        self.further_steps, self.average_decay = self.target.most, ema

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the criterion's metrics of the student on the query set."""
        target = self.target.params(adapted, task)
        value = torch.stack([(target[name] - p).square().sum() for name, p in adapted.params.items()]).sum()
        x, y = adapted.sample(adapted.params, 0)
        with torch.no_grad():
            scores = scores_of(adapted.call(adapted.params, x))
        return value, adapted.criterion.metrics(scores, y)
