"""Any folder tree or zip with one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from metaflowkit.datasets.cache import cached
from metaflowkit.datasets.images import decode, open_source
from metaflowkit.datasets.splits import draw_fractions, read_splits, select
from metaflowkit.errors import DataError
from metaflowkit.registry import DATASETS
from metaflowkit.schema import Count, Natural, Side
from metaflowkit.values import ImageSet


@DATASETS.register("folder")
class Folder:
    """Any folder tree or zip of images with one folder per class.

    Args:
        root: the folder or the zip.
        image_size: side in pixels; images are cropped to their central square and resized.
        mode: ``grey`` or ``color``.
        depth: how many folder levels below ``root`` name a class; 2 makes classes such as ``EuroSAT_RGB/Forest``.
        invert: swap black and white.
        fractions: share of the classes in each split, drawn with ``split_seed``; null for 0.6, 0.2, 0.2.
        split_seed: seed of that draw.
        split_files: instead of a draw, the path of a list of class names for each split.
    """

    def __init__(
        self,
        root: str,
        image_size: Side = 84,
        mode: Literal["grey", "color"] = "color",
        depth: Count = 1,
        invert: bool = False,
        fractions: dict[str, float] | None = None,
        split_seed: Natural = 0,
        split_files: dict[str, str] | None = None,
    ) -> None:
        if fractions is not None and split_files is not None:
            raise ValueError("fractions and split_files both say how classes are split; keep one")
        self.root, self.image_size, self.mode, self.depth, self.invert = Path(root), image_size, mode, depth, invert
        self.fractions = fractions or {"train": 0.6, "val": 0.2, "test": 0.2}
        self.split_seed, self.split_files = split_seed, split_files
        draw_fractions(0, self.fractions, 0)

    def load(self) -> dict[str, ImageSet]:
        """Decode, or read from the cache, and split by class."""
        source = open_source(self.root)
        classes = ["/".join(name.split("/")[: self.depth]) for name in source.names]
        for name in source.names:
            if name.count("/") < self.depth:
                raise DataError(f"{self.root}: {name}: lies less than {self.depth} folders deep; set dataset.depth to the levels that name a class")
        names = sorted(set(classes))
        if len(names) < 2:
            raise DataError(f"{self.root}: holds one class, {names[0]!r}; few-shot tasks need at least two folders of images (or set dataset.depth)")
        place = {name: i for i, name in enumerate(names)}
        key = {
            "folder": source.fingerprint(),
            "names": source.names,
            "size": self.image_size,
            "mode": self.mode,
            "invert": self.invert,
            "depth": self.depth,
        }
        mode: Literal["grey", "color"] = "grey" if self.mode == "grey" else "color"
        x, y, names = cached(key, lambda: (decode(source, self.image_size, mode, self.invert), torch.tensor([place[c] for c in classes]), names))
        chosen = read_splits(names, self.split_files) if self.split_files is not None else draw_fractions(len(names), self.fractions, self.split_seed)
        return {split: select(x, y, names, members) for split, members in chosen.items()}
