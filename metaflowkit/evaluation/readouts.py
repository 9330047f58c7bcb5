"""Readouts: ways to classify the query of a few-shot task. Each is a class of this module."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.config.registry import READOUTS
from metaflowkit.config.schema import Positive
from metaflowkit.distances import prototypes, similarity
from metaflowkit.evaluation.base import Shown


@READOUTS.register("prototype")
class PrototypeReadout:
    """The nearest class mean of the embedding, by the head's metric."""

    similarity = True

    def __call__(self, shown: Shown) -> Tensor:
        """Similarity of each query's features to the class means [T, n, N]."""
        support, query = shown.embedded
        means = [prototypes(s, y, shown.episode.way) for s, y in zip(support, shown.episode.support.y)]
        return torch.stack([similarity(q, m, shown.metric) for q, m in zip(query, means)])


@READOUTS.register("adapted")
class AdaptedReadout:
    """The head after the inner steps on the labelled support, each example shown in ``evaluate.views`` augmented copies."""

    adapts = True

    def __call__(self, shown: Shown) -> Tensor:
        """Scores of the adapted model [T, n, N]."""
        scores: Tensor = shown.flow.learner.adapt(shown.views(), shown.episode, query_scores).read
        return scores


@READOUTS.register("logistic")
class LogisticReadout:
    """Logistic regression on the unit features of the frozen embedding (scikit-learn's).

    Args:
        c: inverse strength of its penalty.
    """

    def __init__(self, c: Positive = 10.0) -> None:
        self.c = c

    def __call__(self, shown: Shown) -> Tensor:
        """Log-probabilities of the fitted regression [T, n, N]."""
        from sklearn.linear_model import LogisticRegression

        scores = []
        for s, y, q in zip(shown.embedded[0], shown.episode.support.y, shown.embedded[1]):
            s, q = (torch.nn.functional.normalize(f, dim=-1).double().cpu() for f in (s, q))
            model = LogisticRegression(C=self.c, max_iter=1000).fit(s.numpy(), y.cpu().numpy())
            scores.append(torch.from_numpy(model.predict_log_proba(q.numpy())).to(shown.episode.query.y.device))
        return torch.stack(scores)
