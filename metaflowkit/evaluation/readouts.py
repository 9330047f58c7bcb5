"""How the query of a few-shot task is classified. Each readout is a class; the list of what exists is this module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.registry import READOUTS
from metaflowkit.config.schema import Positive
from metaflowkit.distances import prototypes, similarity
from metaflowkit.evaluation.embedding import embed
from metaflowkit.types import Episode, Labelled


@dataclass(frozen=True)
class Shown:
    """A batch of tasks to classify.

    Attributes:
        flow: with the weights that are measured.
        episode: the tasks, as the model reads them, on the device.
        purpose: stream of the augmentation that a readout may ask for.
        index: of the batch.
    """

    flow: FewShotFlow
    episode: Episode
    purpose: str
    index: int

    @cached_property
    def embedded(self) -> tuple[Tensor, Tensor]:
        """Features of support and query [T, n, D] by the unadapted backbone."""
        support, query = (embed(self.flow.model, examples.x) for examples in (self.episode.support, self.episode.query))
        return support, query

    @property
    def metric(self) -> str:
        """By which features are compared: ``cosine`` or ``euclidean``, as the head says."""
        return str(self.flow.model.head.metric)

    def views(self) -> Labelled:
        """What the inner loop adapts on: augmented copies of the support, or the support itself (``evaluate.views``)."""
        views, support = evaluation_views(self.flow.pipeline), self.episode.support
        if not views:
            return cast(Labelled, support)
        x = support.x.repeat_interleave(views, dim=1)
        return Labelled(self.flow.augmented(x, "support", self.purpose, self.index), support.y.repeat_interleave(views, dim=1))


class Readout(Protocol):
    """One way to classify.

    Attributes:
        adapts: whether it runs the inner loop, for which head and loss must fit way and shot.
    """

    adapts: bool = False

    def __call__(self, shown: Shown) -> Tensor:
        """Scores of the query [T, n, N]."""


@READOUTS.register("prototype")
class Prototype:
    """The nearest class mean of the embedding, by the head's metric."""

    def __call__(self, shown: Shown) -> Tensor:
        """See :class:`Readout`."""
        support, query = shown.embedded
        means = [prototypes(s, y, shown.episode.way) for s, y in zip(support, shown.episode.support.y)]
        return torch.stack([similarity(q, m, shown.metric) for q, m in zip(query, means)])


@READOUTS.register("adapted")
class Adapted:
    """The head after the inner steps on the labelled support, each example shown in ``evaluate.views`` augmented copies."""

    adapts = True

    def __call__(self, shown: Shown) -> Tensor:
        """See :class:`Readout`."""
        scores: Tensor = shown.flow.learner.adapt(shown.views(), shown.episode, query_scores).read
        return scores


@READOUTS.register("logistic")
class Logistic:
    """Logistic regression on the unit features of the frozen embedding (scikit-learn's).

    Args:
        c: inverse strength of its penalty.
    """

    def __init__(self, c: Positive = 10.0) -> None:
        self.c = c

    def __call__(self, shown: Shown) -> Tensor:
        """See :class:`Readout`."""
        from sklearn.linear_model import LogisticRegression

        scores = []
        for s, y, q in zip(shown.embedded[0], shown.episode.support.y, shown.embedded[1]):
            s, q = (torch.nn.functional.normalize(f, dim=-1).double().cpu() for f in (s, q))
            model = LogisticRegression(C=self.c, max_iter=1000).fit(s.numpy(), y.cpu().numpy())
            scores.append(torch.from_numpy(model.predict_log_proba(q.numpy())).to(shown.episode.query.y.device))
        return torch.stack(scores)
