"""Splits, by class or by image within a class: drawn by seed or read from lists of classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metaflowkit.config.schema import nearest
from metaflowkit.datasets.mapped import rows_of
from metaflowkit.errors import DataError
from metaflowkit.seeding import generator_for
from metaflowkit.types import ImageSet

SPLITS = ("train", "val", "test")
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}  # of classes or images, where nothing else is given


def select(x: Tensor, y: Tensor, names: Sequence[str], chosen: Sequence[int]) -> ImageSet:
    """The images of the chosen classes, class by class, relabelled 0, 1, ... in the order of ``chosen``."""
    rows = [torch.nonzero(y == c).flatten() for c in chosen]
    labels = [torch.full((len(r),), i, dtype=torch.int64) for i, r in enumerate(rows)]
    if not rows:
        return ImageSet(x[:0], y[:0], ())
    return ImageSet(rows_of(x, torch.cat(rows)), torch.cat(labels), tuple(names[c] for c in chosen))


def grouped(x: Tensor, classes: Sequence[str | None], rows: Sequence[int]) -> ImageSet:
    """The images in these rows, whose classes are those named for them, in the order of the names."""
    names = sorted({str(classes[i]) for i in rows})
    numbers = {name: i for i, name in enumerate(names)}
    ordered = sorted(rows, key=lambda i: numbers[str(classes[i])])
    return ImageSet(rows_of(x, ordered), torch.tensor([numbers[str(classes[i])] for i in ordered], dtype=torch.int64), tuple(names))


def unlabelled(x: Tensor) -> ImageSet:
    """Images without classes."""
    return ImageSet(x, torch.zeros(0, dtype=torch.int64), ())


def check_fractions(fractions: dict[str, float] | None) -> None:
    """Refuse shares that are no split of a whole.

    Raises:
        ValueError: unknown split names, negative shares, or shares above 1 in sum.
    """
    if fractions and (set(fractions) - set(SPLITS) or min(fractions.values()) < 0 or sum(fractions.values()) > 1 + 1e-9):
        raise ValueError(f"fractions must name train, val and test with shares that add up to at most 1, got {fractions}; correct them")


def draw_images(classes: Sequence[str], fractions: dict[str, float], seed: int) -> dict[str, list[int]]:
    """Distribute the images of every class over train, val and test; the splits then have the same classes and other images of them.

    Args:
        classes: the class of each image.
        fractions: share of each class's images in each split.
        seed: of the shuffles, one for each class.

    Returns:
        The images of each split by their position in ``classes``.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(classes):
        members[name].append(i)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for name, rows in members.items():
        for split, positions in draw_fractions(len(rows), fractions, seed, f"datasets/split/{name}").items():
            splits[split] += [rows[i] for i in positions]
    return splits


def draw_fractions(count: int, fractions: dict[str, float], seed: int, purpose: str = "datasets/split") -> dict[str, list[int]]:
    """Shuffle 0..count-1 with the seed and distribute them over train, val and test.

    Args:
        count: number of classes.
        fractions: share of each split; they add up to 1 or less.
        seed: of the shuffle; the same seed gives the same split on every machine.
        purpose: what is drawn; see :func:`metaflowkit.seeding.seed_for`.

    Raises:
        ValueError: see :func:`check_fractions`.
    """
    check_fractions(fractions)
    order = torch.randperm(count, generator=generator_for(seed, purpose)).tolist()
    ends, start, total = {}, 0, 0.0
    for name in SPLITS:
        total += fractions.get(name, 0.0)
        end = round(total * count)
        ends[name] = sorted(order[start:end])
        start = end
    return ends


def listed(names: Sequence[str], chosen: Sequence[str], where: str) -> list[int]:
    """Indices of class names.

    Raises:
        DataError: naming the first class that does not exist; ``where`` is its origin.
    """
    index = {name: i for i, name in enumerate(names)}
    for name in chosen:
        if name not in index:
            raise DataError(f"{where}: there is no class {name!r} among {len(names)}; {nearest(name, names[:2000])}")
    return [index[name] for name in chosen]


def read_splits(names: Sequence[str], files: dict[str, str]) -> dict[str, list[int]]:
    """The classes of each split, from one list file per split.

    Raises:
        DataError: a list cannot be read, names a class that does not exist, or one that another split has.
    """
    return disjoint(names, {split: listed(names, read_list(path), path) for split, path in files.items()})


def disjoint(names: Sequence[str], chosen: dict[str, list[int]]) -> dict[str, list[int]]:
    """The splits unchanged, once each is known to be train, val or test and no class to be in two of them.

    Raises:
        DataError: naming an unknown split, or a class that is in two splits.
    """
    for split in chosen:
        if split not in SPLITS:
            raise DataError(f"dataset: there is no split {split!r}; {nearest(split, SPLITS)}")
    owner: dict[int, str] = {}
    for split, members in chosen.items():
        for c in members:
            if c in owner:
                raise DataError(f"dataset: class {names[c]!r} is in {owner[c]} and in {split}; keep it in one, so that test classes stay unseen")
            owner[c] = split
    return chosen


def read_list(path: str) -> list[str]:
    """Class names, one per line; blank lines and lines that start with ``#`` are skipped.

    Raises:
        DataError: the file cannot be read or names no class.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of classes cannot be read ({error}); give a text file with one class per line") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise DataError(f"{path}: names no class; write one class per line")
    return names
