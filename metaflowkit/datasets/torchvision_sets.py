"""Any labelled image data set of torchvision, by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Natural, Side, nearest
from metaflowkit.datasets.cache import cached_images, lookup
from metaflowkit.datasets.cache_file import Allocate, Arrays
from metaflowkit.datasets.images import Decoding, chunks, room_for, to_array
from metaflowkit.datasets.source import digest, tree_stamps
from metaflowkit.datasets.splits import SHARES, check_fractions, disjoint, draw_fractions, listed, select
from metaflowkit.errors import DataError
from metaflowkit.types import ImageSet


@DATASETS.register("torchvision")
class TorchvisionSet:
    """Any labelled torchvision image data set by name (MNIST, FashionMNIST, CIFAR10, CIFAR100, EuroSAT, Flowers102, ...).

    Its own train and test parts are merged, since few-shot splits are by class.

    Args:
        set: the class in ``torchvision.datasets``.
        root: where the files lie or are downloaded to.
        download: fetch them where they are missing.
        image_size: side in pixels.
        mode: ``grey`` or ``color``.
        fractions: share of the classes in each split, drawn with ``split_seed``; null for 0.6, 0.2, 0.2.
        split_seed: seed of that draw.
        classes: instead of a draw, the class names of each split.
    """

    modality = "images"

    def __init__(
        self,
        set: str,
        root: str = "data",
        download: bool = False,
        image_size: Side = 28,
        mode: Literal["grey", "color"] = "color",
        fractions: dict[str, float] | None = None,
        split_seed: Natural = 0,
        classes: dict[str, list[str]] | None = None,
    ) -> None:
        if fractions is not None and classes is not None:
            raise ValueError("fractions and classes both say how classes are split; keep one")
        check_fractions(fractions)
        self.set, self.root, self.download, self.decoding = set, root, download, Decoding(image_size, mode)
        self.fractions = fractions or SHARES
        self.split_seed, self.classes = split_seed, classes

    def load(self) -> dict[str, ImageSet]:
        """Open every part of the set and decode it, or read it from the cache, and split by class."""
        x, y, names = self._read()
        if self.classes is not None:
            chosen = disjoint(names, {split: listed(names, members, f"dataset.classes.{split}") for split, members in self.classes.items()})
        else:
            chosen = draw_fractions(len(names), self.fractions, self.split_seed)
        return {split: select(x, y, names, members) for split, members in chosen.items()}

    def _read(self) -> Arrays:
        """Images, labels and class names, from the cache where they lie there."""
        key = self._key()
        arrays = lookup(key) if key else None
        if arrays is not None:
            return arrays
        parts = list(self._parts())
        key = self._key() if self.download else key
        if key is None:
            return self._decode(parts)
        size = sum(map(len, parts)) * self.decoding.channels * self.decoding.size**2
        title = f"torchvision {self.set} in {self.root}, {self.decoding.size}x{self.decoding.size} {self.decoding.mode}"
        return cached_images(key, partial(self._decode, parts), title, size)

    def _key(self) -> dict[str, Any] | None:
        """What identifies the decoded images: the files below ``root``, by names, sizes and times; None where there are none."""
        root = Path(self.root)
        stamps = tree_stamps(root)
        if not stamps:
            return None
        return {"torchvision": self.set, "files": digest([os.fspath(root.resolve()), *stamps]), "version": version("torchvision"), **vars(self.decoding)}

    def _parts(self) -> Iterator[Any]:
        from torchvision import datasets

        names = [name for name in datasets.__all__ if name[0].isupper()]
        if self.set not in names:
            raise DataError(f"dataset.set: torchvision has no data set {self.set!r}; {nearest(self.set, names)}")
        build = getattr(datasets, self.set)
        parameters = inspect.signature(build.__init__).parameters
        options = {"root": self.root, **({"download": self.download} if "download" in parameters else {})}
        choices: list[dict[str, Any]] = [{}]
        if "train" in parameters:
            choices = [{"train": True}, {"train": False}]
        elif "split" in parameters:
            choices = [{"split": name} for name in ("train", "val", "test")]
        count = 0
        failure: Exception | None = None
        for choice in choices:
            try:
                yield build(**options, **choice)
                count += 1
            except ValueError as error:  # this set has no such part
                failure = error
            except (RuntimeError, OSError, TypeError) as error:
                raise DataError(f"{self.root}: torchvision cannot open {self.set} ({error}); set dataset.root, or dataset.download=true to fetch it") from None
        if not count:
            raise DataError(f"{self.root}: torchvision cannot open {self.set} ({failure}); it needs arguments that this data set cannot give")

    def _decode(self, parts: list[Any], allocate: Allocate | None = None) -> Arrays:
        items = [(part, i) for part in parts for i in range(len(part))]
        x, labels = room_for(len(items), self.decoding, Path(self.root), allocate), []
        for rows in chunks(x):
            for row in rows:
                x[row], label = self._item(*items[row])
                if not isinstance(label, (int, np.integer)):
                    raise DataError(
                        f"dataset.set: {self.set} labels its images with {type(label).__name__}, not with one class each; choose a classification set"
                    )
                labels.append(int(label))
        names = [str(name) for name in getattr(parts[0], "classes", None) or range(max(labels) + 1)]
        return torch.from_numpy(np.asarray(x)), torch.tensor(labels), names

    def _item(self, part: Any, i: int) -> tuple[np.ndarray, Any]:
        try:
            image, label = part[i]
            return to_array(image, self.decoding), label
        except (OSError, SyntaxError, ValueError) as error:
            files = next((getattr(part, name) for name in ("samples", "_samples", "_image_files") if hasattr(part, name)), None)
            file = f"image {i}" if files is None else str(files[i][0] if isinstance(files[i], tuple) else files[i])
            raise DataError(f"{self.root}: {self.set}: {file}: is no readable image ({error}); mend that file or download the set again") from None
