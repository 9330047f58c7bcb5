"""The layout of image folders: the class of each image, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metaflowkit.datasets.source import shown
from metaflowkit.datasets.splits import SPLITS
from metaflowkit.errors import DataError

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LayoutKind = Literal["flat", "classes", "splits"]


@dataclass(frozen=True)
class Layout:
    """The meaning of each image's folders.

    Attributes:
        kind: ``flat`` has neither classes nor splits, ``classes`` has classes, ``splits`` has splits, with classes or without.
        classes: the class of each image; None where it has none.
        splits: the split of each image; None where folders name none.
    """

    kind: LayoutKind
    classes: tuple[str | None, ...]
    splits: tuple[str | None, ...]

    def of(self, rows: Sequence[int]) -> Layout:
        """The layout of some of the images."""
        return Layout(self.kind, tuple(self.classes[i] for i in rows), tuple(self.splits[i] for i in rows))


def read_layout(root: Path, names: Sequence[str], kind: LayoutKind | Literal["auto"] = "auto", depth: int | None = None) -> Layout:
    """Read classes and splits from the paths of images.

    Args:
        root: their folder, for messages.
        names: their paths below it, with ``/``.
        kind: the layout; ``auto`` recognises it.
        depth: how many folder levels name a class, from ``root`` on or from the folder of the split on. None leaves out top folders that hold everything and
            takes one level.

    Raises:
        DataError: the paths do not have the layout, or are ambiguous.
    """
    paths = [name.split("/") for name in names]
    if depth is not None:
        kind = "classes" if kind == "auto" else kind
    elif kind != "flat":
        paths = _below_top(paths, keep=2 if kind == "classes" else 1)
    if kind == "auto":
        kind = _recognised(root, names, paths)
    if kind == "flat":
        return Layout("flat", (None,) * len(names), (None,) * len(names))
    if kind == "splits":
        return _by_split(root, names, paths, depth or 1)
    return Layout("classes", tuple(_classes(root, names, paths, depth or 1)), (None,) * len(names))


def _below_top(paths: list[list[str]], keep: int) -> list[list[str]]:
    """The paths without the top folders that hold every image, of which at least ``keep`` parts stay; a folder named like a split stays."""
    while all(len(path) > keep for path in paths) and len({path[0] for path in paths}) == 1 and paths[0][0].lower() not in SPLIT_FOLDERS:
        paths = [path[1:] for path in paths]
    return paths


def _recognised(root: Path, names: Sequence[str], paths: list[list[str]]) -> LayoutKind:
    direct = [name for name, path in zip(names, paths) if len(path) == 1]
    if len(direct) == len(names):
        return "flat"
    if direct:
        inside = next(name for name, path in zip(names, paths) if len(path) > 1)
        raise DataError(
            f"{root}: holds images directly and in folders, such as {shown(direct[0])} and {shown(inside)}; set dataset.layout to flat to learn from all "
            "of them without classes, or move each into the folder of its class"
        )
    return "splits" if all(path[0].lower() in SPLIT_FOLDERS for path in paths) else "classes"


def _classes(root: Path, names: Sequence[str], paths: list[list[str]], depth: int) -> list[str]:
    for name, path in zip(names, paths):
        if len(path) <= depth:
            raise DataError(
                f"{root}: {shown(name)}: lies less than {depth} folders deep; set dataset.depth to the levels that name a class, "
                "or dataset.layout to flat where there are no classes"
            )
    return [shown("/".join(path[:depth])) for path in paths]


def _by_split(root: Path, names: Sequence[str], paths: list[list[str]], depth: int) -> Layout:
    splits: list[str] = []
    for name, path in zip(names, paths):
        if len(path) == 1 or path[0].lower() not in SPLIT_FOLDERS:
            raise DataError(
                f"{root}: {shown(name)}: lies in none of the folders {', '.join(SPLIT_FOLDERS)}; move it there, or set dataset.layout to classes or flat"
            )
        splits.append(SPLIT_FOLDERS[path[0].lower()])
    classes: list[str | None] = [None] * len(names)
    for split in SPLITS:
        rows = [i for i, chosen in enumerate(splits) if chosen == split]
        if split == "train" and all(len(paths[i]) == 2 for i in rows):
            continue  # without classes
        for i, name in zip(rows, _classes(root, [names[i] for i in rows], [paths[i][1:] for i in rows], depth)):
            classes[i] = name
    return Layout("splits", tuple(classes), tuple(splits))
