"""Readouts: ways to classify the query of a few-shot task. Each is a class of this module."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.augment.stage import Stage
from metaflowkit.composition.augmentation import level_choices
from metaflowkit.composition.few_shot import query_scores
from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.composition.inputs import channels_last
from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import READOUTS
from metaflowkit.config.schema import Count, Level, Positive
from metaflowkit.distances import prototypes, similarity
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.base import Shown
from metaflowkit.evaluation.embedding import embed


@READOUTS.register("prototype")
class PrototypeReadout:
    """The nearest class mean of the embedding, by the head's metric."""

    similarity = True

    def __call__(self, shown: Shown) -> Tensor:
        """Similarity of each query's features to the class means [T, n, N]."""
        support, query = shown.embedded
        means = [prototypes(s, y, shown.episode.way) for s, y in zip(support, shown.episode.support.y)]
        return torch.stack([similarity(q, m, shown.metric) for q, m in zip(query, means)])


@READOUTS.register("averaged")
class AveragedReadout:
    """The nearest class mean of features that are averaged over an image and augmented copies of it (test-time augmentation).

    f(x) = (e(x) + sum_v e(a_v(x))) / (1 + views), where the a_v are drawn once and are the same for every image, so that no answer depends on the other images.

    Args:
        views: augmented copies of each image, which multiply the time by 1 + views.
        level: of augmentation that they are drawn from.
    """

    augments = True
    similarity = True

    def __init__(self, views: Count = 4, level: Level = 1) -> None:
        self.views, self.level = views, level

    def __call__(self, shown: Shown) -> Tensor:
        """Similarity of each query's averaged features to the class means [T, n, N]."""
        stage = self._stage(shown.flow)
        support, query = (self._averaged(shown, stage, x, own) for x, own in zip((shown.episode.support.x, shown.episode.query.x), shown.embedded))
        means = [prototypes(s, y, shown.episode.way) for s, y in zip(support, shown.episode.support.y)]
        return torch.stack([similarity(q, m, shown.metric) for q, m in zip(query, means)])

    def _stage(self, flow: FewShotFlow) -> Stage:
        """The level's operations, each with the same draw for all images of a batch."""
        if len(flow.shape) != 3 or flow.shape[0] not in (1, 3):
            raise ConfigError(f"evaluate.readouts: 'averaged' augments grey and colour images, got examples of shape {flow.shape}; choose prototype")
        choices = level_choices(self.level, "grey" if flow.shape[0] == 1 else "color")
        same = [Choice(choice.name, {**choice.settings, "same_on_batch": True}) for choice in choices]
        return Stage(same, 0, torch.zeros(2, *flow.shape))

    def _averaged(self, shown: Shown, stage: Stage, x: Tensor, own: Tensor) -> Tensor:
        copies = (channels_last(stage(x, "support", "averaged", v)) for v in range(self.views))
        return sum((embed(shown.flow.model, copy) for copy in copies), own) / (1 + self.views)


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
