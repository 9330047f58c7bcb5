"""Few-shot episodes from labelled examples: for evaluation, and for supervised meta-learning as a baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Examples, Natural, Ways
from metaflowkit.errors import DataError
from metaflowkit.seeding import generator_for
from metaflowkit.types import Episode, ExampleSet, Labelled


@TASKS.register("labelled")
class LabelledTasks:
    """N-way episodes of true classes: N classes, S support and Q query examples of each, all different.

    Args:
        images: the split with its labels.
        seed: the run's seed.
        way: classes per task (N).
        shot: support examples of each class (S).
        query: query examples of each class (Q).
        meta_batch: tasks per outer step (T).

    Raises:
        DataError: the split has fewer than N classes with S + Q examples.
    """

    reads_labels = True

    def __init__(self, images: ExampleSet, seed: Natural, way: Ways = 5, shot: Examples = 1, query: Examples = 5, meta_batch: Examples = 4) -> None:
        counts = torch.bincount(images.y, minlength=len(images.classes)) if len(images.y) else torch.zeros(0, dtype=torch.int64)
        self.classes = torch.nonzero(counts >= shot + query).flatten()
        if len(self.classes) < way:
            raise DataError(
                f"way {way} with shot {shot} and query {query} needs {way} classes of {shot + query} images, "
                f"the split has {len(self.classes)} of its {len(images.classes)} classes; lower way, shot or query, or widen the split"
            )
        self.rows = [torch.nonzero(images.y == c).flatten() for c in range(len(images.classes))]
        self.images, self.seed, self.way, self.shot, self.query, self.meta_batch = images, seed, way, shot, query, meta_batch

    def episode(self, step: int, purpose: str = "train") -> Episode:
        """The episodes of an index; pure in (seed, purpose, step), where ``purpose`` separates train, val and test. Shapes as in :meth:`Views.episode`."""
        return self.of_rows(*self.drawn(step, purpose))

    def drawn(self, step: int, purpose: str = "train") -> tuple[Tensor, Tensor]:
        """The rows of the split that support [T, N * S] and query [T, N * Q] of an index consist of, class by class."""
        generator = generator_for(self.seed, f"tasks/{purpose}", step)
        support, query = [], []
        for _ in range(self.meta_batch):
            classes = self.classes[torch.randperm(len(self.classes), generator=generator)[: self.way]]
            rows_by_class = [self.rows[c][torch.randperm(len(self.rows[c]), generator=generator)[: self.shot + self.query]] for c in classes.tolist()]
            support.append(torch.cat([rows[: self.shot] for rows in rows_by_class]))
            query.append(torch.cat([rows[self.shot :] for rows in rows_by_class]))
        return torch.stack(support), torch.stack(query)

    def of_rows(self, support: Tensor, query: Tensor) -> Episode:
        """The episodes of drawn rows."""

        def labelled(rows: Tensor, count: int) -> Labelled:
            return Labelled(self.images.x[rows], torch.arange(self.way).repeat_interleave(count).expand(len(rows), -1))

        return Episode(labelled(support, self.shot), labelled(query, self.query), self.way)
