"""The bootstrapped objective: the student is matched to itself after further inner steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import InnerSteps, Positive
from metaflowkit.types import Adapted, Episode, Tree, detached, scores_of


@OBJECTIVES.register("bootstrapped_kl")
class BootstrappedKL:
    """KL between the predictions of the target (delta steps further, no gradient) and of the student, on the query set.

    mean_i KL(pi_target(x_i) || pi_student(x_i)); for classes pi = softmax(logits / temperature), for regression and policies see
    :mod:`metaflowkit.criteria`. Where examples are drawn with the current parameters, the x_i are those drawn with the student's.

    Args:
        delta: steps from the student to its target; more look further ahead and are less stable.
        direction: ``forward`` is KL(target || student), ``reverse`` KL(student || target).
        grounded: take the last of the delta steps on the loss of the tasks, such as the query's cross-entropy, which keeps collapsed
            embeddings from being a fixed point.
        temperature: softens both distributions.

    Reference:
        H. Wang et al., BMSSL, arXiv 2308.14267, 2023; S. Flennerhag et al., Bootstrapped Meta-Learning, ICLR 2022, equation 2.
    """

    def __init__(self, delta: InnerSteps = 5, direction: Literal["forward", "reverse"] = "forward", grounded: bool = True, temperature: Positive = 1.0) -> None:
        if grounded and delta == 0:
            raise ValueError("a grounded target takes its last step on the query, so delta must be at least 1, got 0; raise delta or set grounded: false")
        self.delta, self.direction, self.grounded, self.temperature = delta, direction, grounded, temperature
        self.further_steps = delta

    def target(self, adapted: Adapted, x: Tree) -> Tensor:
        """The target's outputs for inputs ``x``, without graph."""
        params = {name: p.detach() for name, p in adapted.params.items()}
        params, state = adapted.advance(params, detached(adapted.state), self.delta - self.grounded)
        if self.grounded:
            inputs, y = adapted.sample(params, 1)
            params, state = adapted.descend(params, state, lambda p: adapted.criterion.loss(scores_of(adapted.call(p, inputs)), y))
        with torch.no_grad():
            return scores_of(adapted.call(params, x)).detach()

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the criterion's metrics of student and target, such as their query accuracy."""
        x, y = adapted.sample(adapted.params, 0)
        target = self.target(adapted, x)
        student = scores_of(adapted.call(adapted.params, x))
        p, q = (target, student) if self.direction == "forward" else (student, target)
        value = adapted.criterion.divergence(p, q, self.temperature)
        if self.delta == 0:
            value = value * 0  # equal distributions: rounding alone would leave a gradient of about 1e-17
        metrics = {f"target_{name}": metric for name, metric in adapted.criterion.metrics(target, y).items()}
        return value, adapted.criterion.metrics(student, y) | metrics
