"""The bootstrapped objective: the student is pulled toward its own future."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import InnerSteps, Positive
from metaflowkit.objectives.accuracy import accuracy
from metaflowkit.types import Adapted, Episode, detached, scores_of


@OBJECTIVES.register("bootstrapped_kl")
class BootstrappedKL:
    """KL between the class probabilities of the target (delta steps further, no gradient) and of the student, on the query set.

    mean_i KL(pi_target(x_i) || pi_student(x_i)) with pi = softmax(logits / temperature).

    Args:
        delta: steps from the student to its target; more look further ahead and are less stable.
        direction: ``forward`` is KL(target || student), ``reverse`` KL(student || target).
        grounded: take the last of the delta steps on the query's cross-entropy, which keeps collapsed embeddings from being a fixed point.
        temperature: softens both distributions.

    Reference:
        H. Wang et al., BMSSL, arXiv 2308.14267, 2023; S. Flennerhag et al., Bootstrapped Meta-Learning, ICLR 2022, equation 2.
    """

    def __init__(self, delta: InnerSteps = 5, direction: Literal["forward", "reverse"] = "forward", grounded: bool = True, temperature: Positive = 1.0) -> None:
        if grounded and delta == 0:
            raise ValueError("a grounded target takes its last step on the query, so delta must be at least 1, got 0; raise delta or set grounded: false")
        self.delta, self.direction, self.grounded, self.temperature = delta, direction, grounded, temperature

    def target(self, adapted: Adapted, task: Episode) -> Tensor:
        """The target's query logits [n, N], without graph."""
        x, y = task.query
        params = {name: p.detach() for name, p in adapted.params.items()}
        state = detached(adapted.state)
        params, state = adapted.advance(params, state, self.delta - self.grounded)
        if self.grounded:
            params, state = adapted.descend(params, state, lambda p: F.cross_entropy(scores_of(adapted.call(p, x)), y))
        with torch.no_grad():
            return scores_of(adapted.call(params, x)).detach()

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the query accuracy of student and target."""
        x, y = task.query
        target = self.target(adapted, task)
        student = scores_of(adapted.call(adapted.params, x))
        log_t, log_s = (target / self.temperature).log_softmax(-1), (student / self.temperature).log_softmax(-1)
        p, log_p, log_q = (log_t.exp(), log_t, log_s) if self.direction == "forward" else (log_s.exp(), log_s, log_t)
        value = (p * (log_p - log_q)).sum(-1).mean()
        if self.delta == 0:
            value = value * 0  # equal distributions: rounding alone would leave a gradient of about 1e-17
        return value, {"accuracy": accuracy(student, y), "target_accuracy": accuracy(target, y)}
