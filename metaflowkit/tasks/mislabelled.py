"""A bilevel problem without an initialisation to learn: training on examples of which some have a wrong label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import TASKS
from metaflowkit.config.schema import Count, Fraction, Natural
from metaflowkit.criteria import Classification
from metaflowkit.errors import DataError
from metaflowkit.seeding import generator_for
from metaflowkit.trees import Call
from metaflowkit.types import Episode, ExampleSet, Labelled


@TASKS.register("mislabelled")
class Mislabelled:
    """One task: the inner loop trains a classifier on examples of which a share has another class's label, the outer loop sees a small clean set.

    With the loss example_weights the outer loop learns how much each example counts. Measured is the accuracy on the examples
    held out, which share the classes; so the data set must be split by example.

    Args:
        splits: the examples.
        seed: the run's seed.
        flipped: share of the training examples whose label is replaced by another class's, uniformly.
        clean: training examples that keep their label, on which the outer loss is computed.
        learn_from: the examples that the inner loop trains on: ``noisy``, the other examples with their labels, or ``clean``, the small set alone.

    Raises:
        DataError: a split is missing, is too small or has other classes.

    Reference:
        L. Franceschi et al., Forward and Reverse Gradient-Based Hyperparameter Optimization, ICML 2017, section 5.1; A. Shaban et al.,
        Truncated Back-propagation for Bilevel Optimization, AISTATS 2019, section 5.1.
    """

    reads_labels = True
    fixed_support = True
    measured = True
    metric = "accuracy"
    higher_is_better = True
    percent = True
    criterion = Classification()

    def __init__(
        self, splits: Mapping[str, ExampleSet], seed: Natural, flipped: Fraction = 0.4, clean: Count = 50, learn_from: Literal["noisy", "clean"] = "noisy"
    ) -> None:
        for split in ("train", "val", "test"):
            if split not in splits or not splits[split].classes or splits[split].classes != splits["train"].classes:
                raise DataError(f"tasks: need the splits train, val and test with the same classes, and {split} differs; split the data set by example")
        train, classes = splits["train"], len(splits["train"].classes)
        if not classes < clean < len(train.x) - classes:
            raise DataError(f"tasks.clean: must lie between {classes + 1} and {len(train.x) - classes - 1}, got {clean}; change it")
        generator = generator_for(seed, "tasks/mislabelled")
        order = torch.randperm(len(train.x), generator=generator)
        other_labels = (train.y + torch.randint(1, classes, train.y.shape, generator=generator)) % classes
        noisy = order[clean:]
        count = round(flipped * len(noisy))
        labels = train.y.clone()
        labels[noisy[:count]] = other_labels[noisy[:count]]
        noisy = noisy.sort().values
        self.clean = Labelled(_floats(train.x[order[:clean]]), train.y[order[:clean]])
        self.noisy = Labelled(_floats(train.x[noisy]), labels[noisy])
        self.wrong = labels[noisy] != train.y[noisy]
        self.learned_from = self.clean if learn_from == "clean" else self.noisy
        self.held = {split: Labelled(_floats(splits[split].x), splits[split].y) for split in ("val", "test")}
        self.shape, self.outputs = tuple(train.x.shape[1:]), classes

    def episode(self, step: int) -> Episode:
        """The same task at every step."""
        return _one(self.learned_from, self.clean)

    def held_out(self, split: str, index: int, count: int, shot: int) -> Episode:
        """Training as in every step, measured on a split."""
        return _one(self.learned_from, self.held[split])

    def measure(self, call: Call, task: Episode) -> Tensor:
        """Whether each example is classified correctly, 1 or 0, [n]."""
        scores: Tensor = call(task.query.x).logits
        correct: Tensor = scores.argmax(-1) == task.query.y
        return correct.to(torch.float64)


def _one(support: Labelled, query: Labelled) -> Episode:
    return Episode(Labelled(support.x[None], support.y[None]), Labelled(query.x[None], query.y[None]))


def _floats(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x
