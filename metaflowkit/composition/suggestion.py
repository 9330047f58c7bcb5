"""A pipeline that fits a folder of images: what follows from their number, size, colours and classes, with the reason for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from metaflowkit.augment.levels import level_operations
from metaflowkit.config.yaml import to_yaml
from metaflowkit.datasets.splits import SHARES, SPLITS, draw_fractions
from metaflowkit.datasets.survey import Survey
from metaflowkit.errors import printable

SIDES = (16, 20, 24, 28, 32, 48, 64)  # of the images that a network sees; conv4 halves them four times
LEVEL = 3  # of augmentation
WAY = 128
COLLIDING = 3.0  # other images of its own class, among those that an image is told apart from in a task; at 2, on CIFAR-FS, more ways still pay (RESULTS.md)
SPEED = 1_200_000  # pixels per second that conv4-64 trains on with two CPU cores, roughly: 1.4 million on an AMD EPYC, with tasks and augmentation (benchmarks/training_loop.py)
MINUTES = 10
VALIDATIONS = 8
LEAST_CLASSES = 6  # fewer do not leave two new classes each for validation and test
FEW_CLASSES = 20  # with fewer, validation and test would leave ten at most to learn from


@dataclass
class Suggestion:
    """A pipeline for a folder of images.

    Attributes:
        sections: its keys.
        reasons: why, a line for each choice.
    """

    sections: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def because(self, reason: str) -> None:
        """Add a reason."""
        self.reasons.append(reason)

    def to_yaml(self, name: str, found: Sequence[str]) -> str:
        """The pipeline file, its reasons as comments."""
        head = [
            f"# mfk run {name}",
            f"# one override to try: --set 'augment={{level: {LEVEL - 1}}}'",
            *(f"# {printable(line)}" for line in [*found, *self.reasons]),
        ]
        body = [f"{key}: {to_yaml(value, one_line=True).rstrip()}" for key, value in self.sections.items()]
        return "\n".join([*head, *body]) + "\n"


def suggest(images: Survey) -> Suggestion:
    """A pipeline for these images, which trains for about ten minutes on two CPU cores.

    Args:
        images: what they are.
    """
    made = Suggestion()
    side = max(side for side in SIDES if side <= max(images.sizes[1], SIDES[0]))
    made.because(f"image_size {side}: the largest of {', '.join(map(str, SIDES))} that is not above the median side; more costs time as its square")
    dataset: dict[str, Any] = {"name": "folder", "root": str(images.root), "mode": "grey" if images.grey else "color", "image_size": side}
    if images.depth is not None:
        dataset["depth"] = images.depth
    if images.ink_on_paper:
        dataset["invert"] = True
        made.because("invert: the images are ink on paper, and a network learns from the ink")
        made.because(
            f"augment: level {LEVEL} after an elastic transform, since strokes differ from one drawing to the next; on Omniglot it brings one to two points (RESULTS.md)"
        )
    if images.failures:
        dataset["unreadable"] = "skip"
        made.because(f"unreadable skip: {len(images.failures)} files cannot be read")
    training, measured = _split(images, dataset, made)
    count, same = sum(training.values()), sum((n / sum(training.values())) ** 2 for n in training.values()) if len(training) > 1 else 0.0
    way = max(2, min(WAY, count // 2))
    if way > widest(same):
        way = widest(same)
        made.because(
            f"way {way}: training images are of {len(training)} classes, so that of more images in a task many would be of one class, and telling those apart "
            "teaches the wrong thing; images of more classes would help most"
        )
    else:
        made.because(f"way {way}: so many unlabelled images are told apart in each outer step, by two views of each")
    meta_batch = max(1, WAY // (2 * way))
    steps = min(6000, max(100, 100 * round(MINUTES * 0.6 * SPEED / (2 * way * meta_batch * side**2))))
    made.because(f"steps {steps}: about {MINUTES} minutes on two CPU cores; more raise accuracy further where validation is still rising at the end")
    made.because("no inner loop: on photographs prototypes of views have learned more than adaptation so far (RESULTS.md); mfk ls has pipelines with one")
    metric = "semi_normalised"
    made.sections = {
        "dataset": dataset,
        "augment": [_elastic(side), *level_operations(LEVEL, "grey")] if images.ink_on_paper else {"level": LEVEL},
        "tasks": {"name": "views", "way": way, "shot": 1, "query": 1, "meta_batch": meta_batch},
        "model": {"backbone": {"name": "conv4", "width": 64, "norm": "per_step"}, "head": {"name": "prototype", "metric": metric}},
        "inner": {"loss": "task", "steps": 0},
        "objective": {"name": "prototype_contrastive", "metric": metric},
        "outer": {"optimizer": {"name": "adam", "lr": 0.001}, "steps": steps, "schedule": "cosine"},
        "evaluate": {"every": max(1, steps // VALIDATIONS), **_evaluation(measured, made)},
    }
    return made


def widest(same: float) -> int:
    """The most ways of a task at which an image is told apart from no more than three of its own class, where two images are of one with probability ``same``."""
    return int(COLLIDING / max(same, 1e-9)) + 1


def _elastic(side: int) -> dict[str, Any]:
    """Bends strokes; its waves and shifts are in proportion to the side, as those that were chosen at 32 pixels."""
    waves = side / 8
    return {"name": "RandomElasticTransform", "kernel_size": [int(2 * waves) * 2 + 1] * 2, "sigma": [waves] * 2, "alpha": [3.0] * 2, "p": 1.0}


def _split(images: Survey, dataset: dict[str, Any], made: Suggestion) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Images of each training class, and of each measured class of validation and test; the data set's keys for it are added."""
    if images.kind == "flat":
        made.because("all images train, without classes; accuracy is measured on classes, which mfk evaluate takes from another folder (dataset.labelled_root)")
        return {"": images.images}, []
    if images.kind == "splits":
        made.because("train, val and test are the folders of these names")
        return images.splits["train"], [images.splits[split] for split in ("val", "test")]
    names, counts = sorted(images.counts), images.counts
    fewest = min(counts.values())
    of_images = {name: draw_fractions(n, SHARES, 0) for name, n in counts.items()}
    training, *measured = ({name: len(drawn[split]) for name, drawn in of_images.items()} for split in SPLITS)
    by_image = len(names) < FEW_CLASSES and all(min(split.values()) >= 2 for split in measured)
    if fewest < 2 or (len(names) < LEAST_CLASSES and not by_image):
        dataset.pop("depth", None)
        dataset["layout"] = "flat"
        has = "a single image" if fewest == 1 else f"{fewest} images"
        made.because(
            f"layout flat: class {min(counts, key=counts.__getitem__)!r} of {len(names)} has {has}, too few to measure accuracy; all images train without classes"
        )
        return {"": images.images}, []
    if by_image:
        dataset["split_by"] = "image"
        made.because(
            f"split_by image: {len(names)} classes are too few to keep some from training, so all are in the unlabelled pool, and accuracy is on other images of the same classes"
        )
        return training, measured
    held = max(min(5, len(names) // 3), round(len(names) / 5))
    fractions = {"train": (len(names) - 2 * held) / len(names), "val": held / len(names), "test": held / len(names)}
    dataset["fractions"] = {split: round(share, 3) for split, share in fractions.items()}
    dataset["fractions"]["train"] = round(1 - 2 * dataset["fractions"]["val"], 3)
    made.because(f"fractions: {held} classes each are kept for validation and test; those of training are not used, their images are one unlabelled pool")
    drawn = draw_fractions(len(names), dataset["fractions"], 0)
    train, *others = ({names[c]: counts[names[c]] for c in drawn[split]} for split in SPLITS)
    return train, others


def _evaluation(measured: list[dict[str, int]], made: Suggestion) -> dict[str, Any]:
    """The keys of ``evaluate`` that fit the measured classes."""
    common = {"readouts": ["prototype", "logistic"], "episodes": 600, "val_episodes": 200}
    if not measured or not all(measured):
        return common
    fewest = min(min(counts.values()) for counts in measured)
    way = min(5, *(len(counts) for counts in measured))
    shots = [1, 5] if fewest >= 10 else [1]
    query = max(1, min(15, fewest - shots[-1]))
    made.because(f"evaluate: {way}-way episodes with {query} queries per class, since the smallest measured class has {fewest} images")
    return {"way": way, "shot": shots, "query": query, **common}
