"""Omniglot: 1,623 handwritten characters of 50 alphabets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Fraction, Natural, Side
from metaflowkit.datasets import cache_file
from metaflowkit.datasets.images import Decoding, read_images
from metaflowkit.datasets.mapped import MappedRows
from metaflowkit.datasets.source import Source, open_source
from metaflowkit.datasets.splits import draw_fractions, read_splits, select
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet

PARTS = ("images_background", "images_evaluation")
TURNS = 4


@DATASETS.register("omniglot")
class Omniglot:
    """Omniglot, 1,623 handwritten characters of 50 alphabets with 20 drawings each, white ink on black.

    Args:
        root: folder that holds ``images_background`` and ``images_evaluation``, as folders or as ``.zip`` files.
        download: fetch the official zips into ``root`` through torchvision where they are missing.
        split: ``lake`` learns from the background alphabets and tests on the evaluation ones; ``file`` reads ``split_files``.
        val_fraction: share of the background alphabets that become validation classes (split ``lake``).
        split_seed: seed of the draw of validation alphabets (split ``lake``).
        split_files: path of the list of classes of each split, lines such as ``images_background/Latin/character01`` (split ``file``).
        rotations: count characters turned by 90, 180 and 270 degrees as further classes: in no split, in ``train``, or in ``all``.
        image_size: side in pixels; the originals have 105.

    Reference:
        B. Lake, R. Salakhutdinov, J. Tenenbaum, Human-level concept learning through probabilistic program induction, Science 2015.
    """

    modality = "images"

    def __init__(
        self,
        root: str = "data/omniglot",
        download: bool = False,
        split: Literal["lake", "file"] = "lake",
        val_fraction: Fraction = 0.2,
        split_seed: Natural = 0,
        split_files: dict[str, str] | None = None,
        rotations: Literal["none", "train", "all"] = "none",
        image_size: Side = 28,
    ) -> None:
        if split == "file" and not (split_files and set(split_files) <= {"train", "val", "test"}):
            raise ValueError("split 'file' needs split_files with a path for train, val and test, got none; add split_files: {train: ..., val: ..., test: ...}")
        self.root, self.download, self.split, self.val_fraction = Path(root), download, split, val_fraction
        self.split_seed, self.split_files, self.rotations, self.image_size = split_seed, split_files or {}, rotations, image_size

    def load(self) -> dict[str, ImageSet]:
        """Decode, or read from the cache, and split."""
        sources = [self._source(part) for part in PARTS]
        names, labels = _classes(sources)
        decoding = Decoding(self.image_size, "grey", invert=True)
        x, y = torch.cat([read_images(source, decoding, advice=" or download Omniglot again").x for source in sources]), torch.tensor(labels)
        splits = {}
        for split, chosen in self._members(names).items():
            images = select(x, y, names, chosen)
            rotate = self.rotations == "all" or (self.rotations == "train" and split == "train")
            splits[split] = _rotated(images) if rotate else images
        return splits

    def _source(self, part: str) -> Source:
        for path in (self.root / part, self.root / f"{part}.zip", self.root / "omniglot-py" / part):
            if path.exists():
                return open_source(path)
        if not self.download:
            raise DataError(f"{self.root}: holds neither {part} nor {part}.zip; set dataset.root, or dataset.download=true to fetch Omniglot")
        from torchvision.datasets import Omniglot as TorchvisionOmniglot

        try:
            TorchvisionOmniglot(str(self.root), background=part == PARTS[0], download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.root}: Omniglot cannot be downloaded ({error}); check the network or put {part}.zip there by hand") from None
        return open_source(self.root / "omniglot-py" / part)

    def _members(self, names: list[str]) -> dict[str, list[int]]:
        if self.split == "file":
            return read_splits(names, self.split_files)
        alphabets = sorted({name.split("/")[1] for name in names if name.startswith(PARTS[0])})
        val_alphabets = {alphabets[i] for i in draw_fractions(len(alphabets), {"val": self.val_fraction}, self.split_seed)["val"]}
        members: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for i, name in enumerate(names):
            part, alphabet, _ = name.split("/")
            members["test" if part == PARTS[1] else "val" if alphabet in val_alphabets else "train"].append(i)
        return members


def _classes(sources: list[Source]) -> tuple[list[str], list[int]]:
    """The characters by part, alphabet and number, and the index of each image's character."""
    names: list[str] = []
    labels: list[int] = []
    numbers: dict[str, int] = {}
    for part, source in zip(PARTS, sources):
        for file in source.names:
            pieces = file.split("/")
            if len(pieces) < 3:
                raise DataError(f"{source.root}: {file}: is not <alphabet>/<character>/<image>; give Omniglot's own folder tree")
            name = "/".join([part, *pieces[-3:-1]])
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
            labels.append(numbers[name])
    return names, labels


def _rotated(images: ImageSet) -> ImageSet:
    """Four times the classes: each turned by 0, 90, 180 and 270 degrees; where that is large, images are turned whenever they are read."""
    turned = QuarterTurns(images.x)
    rows = torch.arange(len(turned.x) * TURNS)
    y = torch.cat([images.y + k * len(images.classes) for k in range(TURNS)])
    names = tuple(f"{name}@{90 * k}" if k else name for k in range(TURNS) for name in images.classes)
    return ImageSet(MappedRows(turned, rows) if TURNS * images.x.nbytes > cache_file.MAPPED else turned[rows], y, names)


class QuarterTurns:
    """The images of a tensor, and after them the same turned by 90, 180 and 270 degrees, computed as they are read.

    Args:
        x: [n, C, S, S].
    """

    def __init__(self, x: Tensor) -> None:
        self.x, self.shape, self.dtype, self.device = x, torch.Size((TURNS * len(x), *x.shape[1:])), x.dtype, x.device

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images of an index of any shape."""
        images, turns = self.x[rows % len(self.x)].clone(), rows // len(self.x)  # of a single number the index is a view
        for k in range(1, TURNS):
            images[turns == k] = torch.rot90(images[turns == k], k, (-2, -1))
        return images
