"""The bootstrapped objective: the student's predictions are matched to those of its own future."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Decay, InnerSteps, Natural, Positive
from metaflowkit.objectives.target import Target, require_steps
from metaflowkit.types import Adapted, Episode, scores_of


@OBJECTIVES.register("bootstrapped_kl")
class BootstrappedKL:
    """KL between the predictions of the target (delta steps further, no gradient) and of the student, on the query set.

    mean_i KL(pi_target(x_i) || pi_student(x_i)); for classes pi = softmax(logits / temperature), for regression and policies see
    :mod:`metaflowkit.criteria`. For classes at temperature 1 the gradient is, to first order in the step d from the student's parameters to the target's,
    -mean_i J_i' (diag pi - pi pi') J_i d with J_i the derivative of the logits of x_i: the step, weighted by how much each direction changes the predictions.
    Where examples are drawn with the current parameters, the x_i are those drawn with the student's.

    Args:
        delta: steps from the student to its target; more look further ahead and are less stable.
        direction: ``forward`` is KL(target || student), ``reverse`` KL(student || target).
        grounded: take the last of the delta steps on the loss of the tasks, such as the query's cross-entropy, which keeps collapsed
            embeddings from being a fixed point.
        temperature: softens both distributions.
        last_delta: delta at the last outer step, to which it changes linearly; null keeps it.
        outer_steps: of the run.
        ema: decay of a moving average of the initialisation over the outer steps; the target then starts from this average, by the student's
            inner steps. Null starts it from the student.

    Reference:
        H. Wang et al., BMSSL, arXiv 2308.14267, 2023; S. Flennerhag et al., Bootstrapped Meta-Learning, ICLR 2022, equation 2.
    """

    def __init__(
        self,
        delta: InnerSteps = 5,
        direction: Literal["forward", "reverse"] = "forward",
        grounded: bool = True,
        temperature: Positive = 1.0,
        last_delta: InnerSteps | None = None,
        outer_steps: Natural = 0,
        ema: Decay | None = None,
    ) -> None:
        require_steps(delta, last_delta, grounded)
        self.target, self.direction, self.temperature = Target(delta, grounded, last_delta, outer_steps, ema), direction, temperature
        self.further_steps, self.average_decay = self.target.most, ema

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the criterion's metrics of student and target, such as their query accuracy."""
        x, y = adapted.sample(adapted.params, 0)
        params = self.target.params(adapted, task)
        with torch.no_grad():
            target = scores_of(adapted.call(params, x)).detach()
        student = scores_of(adapted.call(adapted.params, x))
        p, q = (target, student) if self.direction == "forward" else (student, target)
        value = adapted.criterion.divergence(p, q, self.temperature)
        if self.target.is_student(task.step):
            value = value * 0  # equal distributions: rounding alone would leave a gradient of about 1e-17
        metrics = {f"target_{name}": metric for name, metric in adapted.criterion.metrics(target, y).items()}
        return value, adapted.criterion.metrics(student, y) | metrics
