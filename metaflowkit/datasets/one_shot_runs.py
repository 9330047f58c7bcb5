"""One-shot classification runs in the format of Lake et al.: folders of training and test images, and which belong together."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from metaflowkit.datasets.images import Decoding, read_images
from metaflowkit.datasets.source import open_source
from metaflowkit.errors import DataError

LABELS = "class_labels.txt"
FORMAT = f"a run is a folder with training/, test/ and {LABELS}, whose lines are such as: run01/test/item01.png run01/training/class19.png"


@dataclass(frozen=True)
class OneShotRun:
    """One run: an image of each class to learn from, and images to classify.

    Attributes:
        name: of its folder.
        training: uint8 [N, C, S, S], one image of each class.
        test: uint8 [M, C, S, S].
        labels: the class of each test image, int64 [M] in 0..N-1.
    """

    name: str
    training: Tensor
    test: Tensor
    labels: Tensor


def read_one_shot_runs(root: Path, decoding: Decoding) -> list[OneShotRun]:
    """The runs in a folder or zip, in the order of their names.

    Args:
        root: holds ``run01``, ``run02``, ... at any depth, each with ``training``, ``test`` and ``class_labels.txt``.
        decoding: how images become arrays.

    Raises:
        DataError: there is no run, one lacks a part or has another size than the others, an image cannot be read, or a line of
            ``class_labels.txt`` is malformed.

    Reference:
        B. Lake, R. Salakhutdinov, J. Tenenbaum, Human-level concept learning through probabilistic program induction, Science 2015, and the
        files of https://github.com/brendenlake/omniglot.
    """
    source = open_source(root, "--one-shot-runs")
    members: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"training": [], "test": []})
    for name in source.names:
        folder = PurePosixPath(name).parent
        if folder.name in ("training", "test") and len(folder.parts) > 1:
            members[str(folder.parent)][folder.name].append(name)
    if not members:
        raise DataError(f"{root}: holds no one-shot run; {FORMAT}")
    pairs = {run: _pairs(root, run, parts["training"], parts["test"]) for run, parts in sorted(members.items())}
    sizes = {run: (len(training), len(classes)) for run, (training, classes) in pairs.items()}
    first = next(iter(sizes))
    if other := next((run for run, size in sizes.items() if size != sizes[first]), None):
        few, many = (f"{size[0]} training and {size[1]} test images" for size in (sizes[other], sizes[first]))
        raise DataError(f"{root}: {other} has {few}, {first} has {many}; give runs of one size")
    images = read_images(source, decoding)
    rows = {source.names[row]: i for i, row in enumerate(images.rows)}
    runs = []
    for run, (training, classes) in pairs.items():
        x, test = (images.x[[rows[name] for name in names]] for names in (training, classes))
        runs.append(OneShotRun(PurePosixPath(run).name, x, test, torch.tensor([training.index(name) for name in classes.values()])))
    return runs


def _pairs(root: Path, run: str, training: list[str], test: list[str]) -> tuple[list[str], dict[str, str]]:
    """The training images of a run, and the training image of the same class for each of its test images."""
    place, parent = f"{root}: {run}", PurePosixPath(run).parent
    if len(training) < 2 or not test:
        raise DataError(f"{place}: has {len(training)} training and {len(test)} test images, and needs two classes and a test image; {FORMAT}")
    classes: dict[str, str] = {}
    for number, line in enumerate(_text(root, f"{run}/{LABELS}").splitlines(), 1):
        if not (names := line.split()):
            continue
        where = f"{place}/{LABELS}, line {number}"
        if len(names) != 2:
            raise DataError(f"{where}: must name a test image and a training image, got {line.strip()!r}; {FORMAT}")
        item, example = (str(parent / name) for name in names)
        for name, known, part in ((item, test, "test"), (example, training, "training")):
            if name not in known:
                raise DataError(f"{where}: {name} is no image in {run}/{part}; correct the line or add the image")
        if item in classes:
            raise DataError(f"{where}: {item} has a class already; remove one of its lines")
        classes[item] = example
    if unnamed := [name for name in test if name not in classes]:
        raise DataError(f"{place}/{LABELS}: gives no class to {unnamed[0]}{f' and {len(unnamed) - 1} more' if len(unnamed) > 1 else ''}; add a line for each")
    return training, classes


def _text(root: Path, name: str) -> str:
    try:
        if root.is_dir():
            return (root / name).read_bytes().decode("utf-8")
        with zipfile.ZipFile(root) as archive:
            return archive.read(name).decode("utf-8")
    except (OSError, KeyError):
        raise DataError(f"{root}: {name} is missing or cannot be read; {FORMAT}") from None
    except UnicodeDecodeError:
        raise DataError(f"{root}: {name} is no UTF-8 text; {FORMAT}") from None
