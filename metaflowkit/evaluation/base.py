"""The contract of a readout, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.checks import evaluation_views
from metaflowkit.evaluation.embedding import embed
from metaflowkit.types import Episode, Labelled


@dataclass(frozen=True)
class Shown:
    """A batch of tasks to classify.

    Attributes:
        flow: with the weights that are measured.
        episode: the tasks, as the model reads them, on the device.
        purpose: random stream of a readout's augmentation.
        index: of the batch.
        features: gives those of support and query from what is known of a split's examples already; None to embed them.
    """

    flow: FewShotFlow
    episode: Episode
    purpose: str
    index: int
    features: Callable[[], tuple[Tensor, Tensor]] | None = None

    @cached_property
    def embedded(self) -> tuple[Tensor, Tensor]:
        """Features of support and query [T, n, D] by the unadapted backbone."""
        if self.features is not None:
            return self.features()
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
    """One way to classify the query of few-shot tasks.

    It is called in forked processes where batches are measured in parallel: what it changes in itself is lost, and it must not draw from torch's global
    generator, of which every process would draw the same numbers (ConfigError).

    Attributes:
        adapts: whether it runs the inner loop, for which head and loss must fit way and shot.
        augments: whether it shows the network changed images, so that it needs the images themselves and not their features.
        similarity: whether scores are similarities by the head's metric, which become logits over the head's temperature; otherwise they are logits.
    """

    adapts: bool = False
    augments: bool = False
    similarity: bool = False

    def __call__(self, shown: Shown) -> Tensor:
        """Scores of the query [T, n, N]; the largest names the class.

        Args:
            shown: the tasks, and the flow whose weights are measured.
        """
