"""The bootstrapped objective in the space of the embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import OBJECTIVES
from metaflowkit.config.schema import Decay, InnerSteps, Natural
from metaflowkit.distances import unit
from metaflowkit.objectives.target import Target, require_steps
from metaflowkit.types import Adapted, Episode, features_of, scores_of


@OBJECTIVES.register("bootstrapped_features")
class BootstrappedFeatures:
    """Squared distance between the query embeddings of the target (delta steps further, no gradient) and of the student: mean_i |z~_i - z_i|^2.

    Args:
        delta: steps from the student to its target.
        metric: ``cosine`` compares embeddings scaled to length one (2 - 2 cos), ``euclidean`` them as they are, divided by their size D.
        grounded: take the last of the delta steps on the loss of the tasks, on the query.
        last_delta: delta at the last outer step, to which it changes linearly; null keeps it.
        outer_steps: of the run.
        ema: decay of a moving average of the initialisation over the outer steps; the target then starts from this average, by the student's
            inner steps. Null starts it from the student.

    Reference:
        J.-B. Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, equation 2; S. Flennerhag et al., Bootstrapped Meta-Learning, ICLR 2022.
        Differs from the first: the target is the student's own future, and there is no predictor.
    """

    def __init__(
        self,
        delta: InnerSteps = 5,
        metric: Literal["cosine", "euclidean"] = "cosine",
        grounded: bool = True,
        last_delta: InnerSteps | None = None,
        outer_steps: Natural = 0,
        ema: Decay | None = None,
    ) -> None:
        require_steps(delta, last_delta, grounded)
        self.target, self.metric = Target(delta, grounded, last_delta, outer_steps, ema), metric
        self.further_steps, self.average_decay = self.target.most, ema

    def __call__(self, adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, and the criterion's metrics of the student on the query set.

        Raises:
            ValueError: the model returns no embeddings.
        """
        x, y = adapted.sample(adapted.params, 0)
        params = self.target.params(adapted, task)
        with torch.no_grad():
            target = features_of(adapted.call(params, x)).detach()
        outputs = adapted.call(adapted.params, x)
        student = features_of(outputs)
        distances = (unit(target) - unit(student)).square().sum(-1) if self.metric == "cosine" else (target - student).square().mean(-1)
        return distances.mean(), adapted.criterion.metrics(scores_of(outputs), y)
