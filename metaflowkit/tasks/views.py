"""Self-supervised few-shot tasks: N unlabelled images are N pseudo-classes."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Examples, Fraction, Natural, Ways
from metaflowkit.errors import DataError
from metaflowkit.seeding import generator_for
from metaflowkit.types import Episode, Labelled


@TASKS.register("views")
class Views:
    """Tasks without labels: N images drawn from the pool are N pseudo-classes, copies of them support and query.

    The copies become views when the augmentation stage draws each of them anew. The class is given the images alone;
    labels do not reach it.

    Args:
        images: the unlabelled pool, [n, C, H, W].
        seed: the run's seed.
        way: images, hence pseudo-classes, per task (N).
        shot: support views of each image (S).
        query: query views of each image (Q).
        meta_batch: tasks per outer step (T).
        share: of the pool that tasks draw on, for accuracy against the number of unlabelled images; a smaller share of one seed is a part of a larger.

    Raises:
        DataError: the share of the pool holds fewer than ``way`` images.

    Reference:
        S. Khodadadeh, L. Boloni, M. Shah, Unsupervised Meta-Learning for Few-Shot Image Classification, NeurIPS 2019.
    """

    reads_labels = False

    def __init__(
        self,
        images: Tensor,
        seed: Natural,
        way: Ways = 5,
        shot: Examples = 2,
        query: Examples = 3,
        meta_batch: Examples = 4,
        share: Fraction = 1.0,
    ) -> None:
        if share < 1:
            chosen = torch.randperm(len(images), generator=generator_for(seed, "tasks/share"))[: round(share * len(images))]
            images = images[chosen.sort().values]
        if len(images) < way:
            part = "" if share == 1 else f" in a share of {share:g}"
            raise DataError(
                f"tasks.way: {way} pseudo-classes need {way} images, the training split has {len(images)}{part}; lower tasks.way or widen the split"
            )
        self.images, self.seed, self.way, self.shot, self.query, self.meta_batch = images, seed, way, shot, query, meta_batch

    def episode(self, step: int) -> Episode:
        """The tasks of an outer step, before augmentation.

        Args:
            step: outer step; the same (seed, step) gives the same tasks.

        Returns:
            Episode with x [T, N*S, C, H, W] and [T, N*Q, C, H, W]; different images within a task.
        """
        generator = generator_for(self.seed, "tasks/train", step)
        indices = torch.stack([torch.randperm(len(self.images), generator=generator)[: self.way] for _ in range(self.meta_batch)])
        return Episode(self._copies(indices, self.shot), self._copies(indices, self.query), self.way)

    def _copies(self, indices: Tensor, count: int) -> Labelled:
        y = torch.arange(self.way).repeat_interleave(count).expand(self.meta_batch, -1)
        return Labelled(self.images[indices.repeat_interleave(count, dim=1)], y)
