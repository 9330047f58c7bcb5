"""The learner: a model, how it adapts, and what the outer loop asks of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.embedding import embed
from metaflowkit.engines.parts import Engine, Parts
from metaflowkit.engines.recomputation import no_recomputation
from metaflowkit.models.model import Model
from metaflowkit.seeding import seeded
from metaflowkit.types import Adaptation, Episode, Labelled, Outcome


@dataclass(frozen=True)
class Learner:
    """Model, rule, loss and objective together with the engine that runs them.

    Attributes:
        parts: the parts; ``parts.model`` holds the meta-parameters.
        engine: how the inner loop is run and differentiated.
    """

    parts: Parts
    engine: Engine

    @property
    def model(self) -> Model:
        """Backbone and head."""
        return self.parts.model

    def outcome(self, episode: Episode) -> Outcome:
        """The outer objective's value, metrics and gradients over a batch of tasks."""
        return self.engine.outcome(self.parts, episode)

    def adapt(self, support: Labelled, episode: Episode) -> Adaptation:
        """Adapt on ``support`` [T, n, ...] and score each task's query set."""
        return self.engine.adapt(self.parts, support, episode)

    def check(self, shape: tuple[int, ...]) -> None:
        """Call the backbone once as the inner loop does, to refuse before a run what can only be seen in its ``forward``.

        Args:
            shape: of an image, (C, H, W).

        Raises:
            ConfigError: it calls ``torch.utils.checkpoint``.
        """
        like = next(iter(self.model.parameters()))
        with torch.enable_grad(), no_recomputation(), seeded(0, like.device), TaskBuffers(self.model).within(self.model):
            self.model.backbone(torch.rand(2, *shape).to(like))

    def embed(self, x: Tensor) -> Tensor:
        """See :func:`metaflowkit.engines.embedding.embed`."""
        return embed(self.model, x)
