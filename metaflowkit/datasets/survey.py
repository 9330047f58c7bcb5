"""What a folder or zip of images holds: classes, sizes, colours, files that cannot be read, and files that are there twice."""

from __future__ import annotations

import hashlib
import statistics
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from metaflowkit.datasets.images import Decoding, listed_failures, open_image, to_array
from metaflowkit.datasets.layout import Layout, LayoutKind, read_layout
from metaflowkit.datasets.source import open_source, shown
from metaflowkit.datasets.splits import SPLITS
from metaflowkit.errors import DataError

LOOKED_AT = Decoding(32, "color")  # pixels from which colour and ground are told
GREY = 4  # of 255 by which the channels of a grey image may differ, after lossy compression
PAPER = 0.75  # of white, the median brightness from which grey images are ink on paper
EXAMPLES = 3


@dataclass(frozen=True)
class Survey:
    """What is known of the images below a root.

    Attributes:
        root: the folder or zip.
        kind: the layout of its folders.
        depth: how many folder levels name a class, where that was given.
        deeper: the number of folders that images lie in, and the depth that makes these the classes; None where they are the classes, or have several depths.
        counts: readable images of each class; empty where there are no classes.
        splits: the same by split, where folders name splits; a split without classes has one without a name.
        images: readable images in all.
        sizes: shorter sides in pixels: smallest, median, largest.
        grey: whether no image has colour.
        ink_on_paper: whether they are grey and mostly white.
        failures: a line for every file that cannot be read.
        duplicates: names of files with the same content, a tuple for each such content.
        across: those of the duplicates that lie in several classes, or in several splits.
    """

    root: Path
    kind: LayoutKind
    depth: int | None
    deeper: tuple[int, int] | None
    counts: dict[str, int]
    splits: dict[str, dict[str, int]]
    images: int
    sizes: tuple[int, int, int]
    grey: bool
    ink_on_paper: bool
    failures: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    across: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """The survey as text."""
        low, middle, high = self.sizes
        side = f"{low}" if low == high else f"{low} to {high} (median {middle})"
        text = [f"{self.images:,} images, {'grey' if self.grey else 'colour'}{', ink on paper' * self.ink_on_paper}, shorter side {side} pixels"]
        if self.counts:
            fewest, most = min(self.counts.values()), max(self.counts.values())
            text.append(f"{len(self.counts)} classes of {fewest if fewest == most else f'{fewest} to {most}'} images")
            if self.deeper is not None:
                folders, depth = self.deeper
                text.append(f"the images lie in {folders} folders below those of the classes; where each of these is a class, give --depth {depth}")
        else:
            text.append("no classes: no folder per class")
        if self.splits:
            text.append("splits by folder: " + ", ".join(f"{split} {sum(self.splits[split].values()):,}" for split in SPLITS))
        if self.failures:
            text += [f"{len(self.failures)} files cannot be read:", *(f"  {line}" for line in listed_failures(self.failures))]
        if self.duplicates:
            extra = sum(len(names) - 1 for names in self.duplicates)
            text.append(f"{extra} files repeat the content of another, such as {' = '.join(self.duplicates[0][:EXAMPLES])}")
        if self.across:
            text.append(
                f"{len(self.across)} contents lie in several classes or splits, such as {' = '.join(self.across[0][:EXAMPLES])}: "
                "accuracy on such images says nothing; remove them"
            )
        return text


@dataclass(frozen=True)
class _Facts:
    content: str
    side: int
    colour: int
    brightness: float


def survey(root: Path, depth: int | None = None) -> Survey:
    """Look at every image below a root.

    Args:
        root: a folder or zip, in one of the layouts of the data set ``folder``.
        depth: how many folder levels name a class; see the data set ``folder``.

    Raises:
        DataError: there is no image, none can be read, or the folders have no clear layout.
    """
    source = open_source(root, "--data")
    layout = read_layout(root, source.names, depth=depth)
    with source.opened() as read, warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)

        def look(name: str) -> _Facts | str:
            try:
                return _facts(read(name))
            except (OSError, ValueError, zlib.error, RuntimeError, zipfile.BadZipFile) as error:
                return f"{shown(name)}: {error}"

        looked = list(pool.map(look, source.names))
    failures = tuple(each for each in looked if isinstance(each, str))
    facts = {i: each for i, each in enumerate(looked) if isinstance(each, _Facts)}
    if not facts:
        raise DataError(f"{root}: none of its {len(looked)} images can be read; give a folder of whole image files", listed_failures(failures))
    same: dict[str, list[int]] = defaultdict(list)
    for i, each in facts.items():
        same[each.content].append(i)
    repeated = [rows for rows in same.values() if len(rows) > 1]
    across = [rows for rows in repeated if len({(layout.classes[i], layout.splits[i]) for i in rows}) > 1]
    sides, grey = [each.side for each in facts.values()], max(each.colour for each in facts.values()) <= GREY
    by_split = {split: dict(Counter(sorted(layout.classes[i] or "" for i in facts if layout.splits[i] == split))) for split in SPLITS}
    return Survey(
        root=root,
        kind=layout.kind,
        depth=depth,
        deeper=_deeper(source.names, layout),
        counts=dict(Counter(sorted(str(name) for i in facts if (name := layout.classes[i]) is not None))),
        splits=by_split if layout.kind == "splits" else {},
        images=len(facts),
        sizes=(min(sides), round(statistics.median(sides)), max(sides)),
        grey=grey,
        ink_on_paper=grey and statistics.median(each.brightness for each in facts.values()) > PAPER,
        failures=failures,
        duplicates=tuple(tuple(shown(source.names[i]) for i in rows) for rows in repeated),
        across=tuple(tuple(shown(source.names[i]) for i in rows) for rows in across),
    )


def _deeper(names: Sequence[str], layout: Layout) -> tuple[int, int] | None:
    """The number of folders that images lie in and their depth, where these are below the folders of the classes and of one depth."""
    folders = {name.rpartition("/")[0] for name in names}
    depths = {folder.count("/") + 1 for folder in folders}
    return (len(folders), depths.pop()) if layout.kind == "classes" and len(depths) == 1 and len(folders) > len(set(layout.classes)) else None


def _facts(content: bytes) -> _Facts:
    """What one file shows; it is decoded as the data set decodes it."""
    with open_image(content) as image:
        pixels = to_array(image, LOOKED_AT).astype(np.int16)
        side = min(image.size)
    return _Facts(hashlib.sha256(content).hexdigest(), side, int(np.ptp(pixels, axis=0).max()), float(pixels.mean() / 255))
