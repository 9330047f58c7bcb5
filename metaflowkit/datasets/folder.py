"""Any folder tree or zip of images, with classes or without."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Count, Natural, Side
from metaflowkit.datasets.images import Decoding, listed_failures, read_images
from metaflowkit.datasets.layout import Layout, read_layout
from metaflowkit.datasets.mapped import rows_of
from metaflowkit.datasets.source import open_source
from metaflowkit.datasets.splits import SHARES, SPLITS, check_fractions, draw_fractions, draw_images, grouped, read_splits, select, unlabelled
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet

LOGGER = logging.getLogger(__name__)
SHARES_WITHOUT_TRAINING = {"val": 0.5, "test": 0.5}
SEEN = "same classes in training and test (other images of them), not new classes"
UNKNOWN = "training images have no classes, so the measured ones may be among them"


@DATASETS.register("folder")
class Folder:
    """Any folder tree or zip of images, with classes or without.

    EXIF orientation is applied, of several frames the first is read, 16-bit images are divided by 257, and floats must lie in 0..1.
    Hidden files, ``__MACOSX`` and previews are no images.

    Decoded images are cached. A zip has changed where a name, size or checksum in its directory has, which is exact; a folder where a
    name, size or time has. Both cost next to nothing. Only where a file system keeps no time of change can a rewritten file of the same
    size pass unnoticed; there, set ``verify``.

    Args:
        root: the folder or the zip.
        image_size: side in pixels; images are cropped to their central square and resized.
        mode: ``grey`` or ``color``.
        depth: how many folder levels below ``root`` (or below the folder of a split) name a class; 2 makes classes such as
            ``EuroSAT_RGB/Forest``. null is one level, below a top folder that holds everything.
        invert: swap black and white.
        fractions: share of the classes (or of the images of each class, see ``split_by``) in each split, drawn with ``split_seed``;
            null for 0.6, 0.2, 0.2.
        split_seed: seed of that draw.
        split_files: instead of a draw, the path of a list of class names for each split.
        layout: ``flat``: images alone, which all train without classes, so that accuracy cannot be measured on them; ``classes``:
            ``<class>/<image>``, and classes are shared out among training, validation and test; ``splits``: ``train/<class>/<image>``,
            ``val/`` (or ``valid/``, ``validation/``) and ``test/``, used as they are, where images directly in ``train/`` train without
            classes; ``auto`` recognises the layout.
        split_by: ``class`` keeps the classes of the splits disjoint, as few-shot evaluation on new classes needs; ``image`` has the same
            classes in all splits and other images of them.
        labelled_root: a second folder or zip whose classes are shared out among validation and test (0.5 each by default, or by its
            own ``val/`` and ``test/``); all images of ``root`` are then training images without classes.
        alpha: background of transparent pixels.
        unreadable: ``error`` names the files that cannot be read, ``skip`` leaves them out and says how many.
        verify: read all files at every start to see whether they have changed, instead of trusting names, sizes and times (of a zip:
            the checksums in its directory).
    """

    modality = "images"

    def __init__(
        self,
        root: str,
        image_size: Side = 84,
        mode: Literal["grey", "color"] = "color",
        depth: Count | None = None,
        invert: bool = False,
        fractions: dict[str, float] | None = None,
        split_seed: Natural = 0,
        split_files: dict[str, str] | None = None,
        layout: Literal["auto", "flat", "classes", "splits"] = "auto",
        split_by: Literal["class", "image"] = "class",
        labelled_root: str | None = None,
        alpha: Literal["white", "black"] = "white",
        unreadable: Literal["error", "skip"] = "error",
        verify: bool = False,
    ) -> None:
        if fractions is not None and split_files is not None:
            raise ValueError("fractions and split_files both say how classes are split; keep one")
        if split_by == "image" and (split_files is not None or labelled_root is not None):
            raise ValueError("split_by 'image' draws images of the same classes; leave split_files and labelled_root out, or set split_by to class")
        if layout == "flat" and depth is not None and labelled_root is None:
            raise ValueError("layout 'flat' has no classes that depth could name; leave one of them out")
        if labelled_root is not None and layout not in ("auto", "flat"):
            raise ValueError(f"with labelled_root all images of root are training images without classes, got layout {layout!r}; leave layout out")
        if labelled_root is not None and ((fractions is not None and "train" in fractions) or (split_files is not None and "train" in split_files)):
            raise ValueError("with labelled_root the training images are those of root; name val and test alone in fractions or split_files")
        check_fractions(fractions)
        self.root, self.labelled_root = Path(root), None if labelled_root is None else Path(labelled_root)
        self.decoding = Decoding(image_size, mode, invert, alpha)
        self.layout, self.depth, self.split_by = layout, depth, split_by
        self.splits_given = fractions is not None or split_files is not None
        self.fractions = fractions or (SHARES if labelled_root is None else SHARES_WITHOUT_TRAINING)
        self.split_seed, self.split_files = split_seed, split_files
        self.unreadable, self.verify = unreadable, verify

    def load(self) -> dict[str, ImageSet]:
        """Decode, or read from the cache, and split.

        Raises:
            DataError: images cannot be read, or do not have the layout.
        """
        if self.labelled_root is None:
            return _with_notes(self._splits(self.root, *self._read(self.root, self.layout, self.depth)))
        pool, _ = self._read(self.root, "flat", None)
        labelled = self._splits(self.labelled_root, *self._read(self.labelled_root, "auto", self.depth))
        if len(labelled["train"].x):
            raise DataError(
                f"{self.labelled_root}: holds training images, but those of dataset.root are learned from; leave its train/ or dataset.labelled_root out"
            )
        return _with_notes({**labelled, "train": unlabelled(pool)})

    def _read(self, root: Path, kind: Literal["auto", "flat", "classes", "splits"], depth: int | None) -> tuple[Tensor, Layout]:
        """The images below a root with the layout of their folders."""
        source = open_source(root)
        layout = read_layout(root, source.names, kind, depth)
        images = read_images(source, self.decoding, self.unreadable, ", or leave them out with dataset.unreadable: skip", self.verify)
        if images.failures:
            lines = "".join(f"\n  {line}" for line in listed_failures(images.failures))
            LOGGER.warning("%s: left out %d of %d images, which cannot be read%s", root, len(images.failures), len(source.names), lines)
        return images.x, layout.of(images.rows)

    def _splits(self, root: Path, x: Tensor, layout: Layout) -> dict[str, ImageSet]:
        if layout.kind == "splits":
            return self._by_folder(root, x, layout)
        if layout.kind == "flat":
            if self.labelled_root is not None:
                raise DataError(f"{root}: holds images and no class folders; accuracy is measured on classes, so give each a folder")
            if self.splits_given or self.split_by == "image":
                raise DataError(
                    f"{root}: has no classes to split; leave dataset.fractions, split_files and split_by out, or put images into a folder per class"
                )
            return {"train": unlabelled(x), "val": unlabelled(x[:0]), "test": unlabelled(x[:0])}
        classes = [str(name) for name in layout.classes]
        names = sorted(set(classes))
        if len(names) < 2:
            raise DataError(
                f"{root}: holds one class, {names[0]!r}; few-shot tasks need at least two folders of images (or set dataset.depth, or dataset.layout to flat)"
            )
        if self.split_by == "image":
            return {split: grouped(x, classes, rows) for split, rows in draw_images(classes, self.fractions, self.split_seed).items()}
        numbers = {name: i for i, name in enumerate(names)}
        y = torch.tensor([numbers[name] for name in classes])
        chosen = read_splits(names, self.split_files) if self.split_files is not None else draw_fractions(len(names), self.fractions, self.split_seed)
        return {split: select(x, y, names, members) for split, members in chosen.items()}

    def _by_folder(self, root: Path, x: Tensor, layout: Layout) -> dict[str, ImageSet]:
        """The splits of the layout ``splits``."""
        if self.splits_given:
            raise DataError(f"{root}: its folders say which images are in which split; leave dataset.fractions and split_files out, or set dataset.layout")
        splits = {}
        for split in SPLITS:
            rows = [i for i, name in enumerate(layout.splits) if name == split]
            classes = [layout.classes[i] for i in rows]
            splits[split] = unlabelled(rows_of(x, rows)) if None in classes else grouped(x, layout.classes, rows)
        shared = [(name, one, other) for one, other in combinations(SPLITS, 2) for name in splits[one].classes if name in splits[other].classes]
        if shared and self.split_by == "class":
            (name, one, other), count = shared[0], len({name for name, _, _ in shared})
            raise DataError(
                f"{root}: class {name!r} is in {one} and in {other} ({count} in all are in several splits); few-shot accuracy is measured on classes that training "
                "has not seen, so keep each in one split, or set dataset.split_by to image for the same classes in training and test"
            )
        return splits


def _with_notes(splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
    """The splits with a note where training has, or may have, seen their classes."""
    train = splits.get("train")
    if train is None or not len(train.x):
        return splits

    def with_note(images: ImageSet) -> ImageSet:
        if images is train or not images.classes:
            return images
        if not train.classes:
            return replace(images, note=UNKNOWN)
        return replace(images, note=SEEN) if set(images.classes) & set(train.classes) else images

    return {split: with_note(images) for split, images in splits.items()}
