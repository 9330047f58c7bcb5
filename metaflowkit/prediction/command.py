"""What ``mfk predict`` does: a folder of labelled images per class, images to classify, and a table of answers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaflowkit.config.yaml import write_atomic
from metaflowkit.datasets.images import Decoding, decode
from metaflowkit.datasets.layout import read_layout
from metaflowkit.datasets.source import Source, open_source, shown
from metaflowkit.errors import DataError
from metaflowkit.prediction.classifier import Classifier, Prediction

NONE = "none of these"


@dataclass(frozen=True)
class Row:
    """The answer for one file.

    Attributes:
        file: its path.
        answer: None where it cannot be read.
        problem: why it cannot be read.
        image: as the network read it, uint8 [C, S, S]; None where it cannot be read.
    """

    file: str
    answer: Prediction | None
    problem: str = ""
    image: Tensor | None = None

    def plain(self) -> dict[str, Any]:
        """The columns of the table."""
        if self.answer is None:
            return {
                "file": self.file,
                "class": "",
                "probability": "",
                "runner_up": "",
                "runner_up_probability": "",
                "none_of_these": "",
                "problem": self.problem,
            }
        return {
            "file": self.file,
            "class": str(self.answer.label),
            "probability": round(self.answer.probability, 4),
            "runner_up": str(self.answer.runner_up),
            "runner_up_probability": round(self.answer.runner_up_probability, 4),
            "none_of_these": not self.answer.known,
            "problem": "",
        }


def predict(classifier: Classifier, support: Path, images: Sequence[Path]) -> tuple[list[Row], dict[str, Tensor]]:
    """Learn from a folder of images per class, and classify others.

    Args:
        classifier: with the weights of a run; it is fitted.
        support: ``<class>/<image>``, a folder or zip.
        images: files, folders or zips.

    Returns:
        A row for every image, in the order of the arguments and of names inside each; the labelled images by class, uint8 [n, C, S, S].

    Raises:
        DataError: a labelled image cannot be read, there are fewer than two classes, or there is nothing to classify.
    """
    decoding = classifier.decoding()
    source = open_source(support, "--support")
    layout = read_layout(support, source.names, "classes")
    x, problems = _read(source, decoding)
    if problems:
        raise DataError(f"{support}: {len(problems)} of {len(source.names)} labelled images cannot be read; mend or remove them", list(problems.values()))
    labels = [str(name) for name in layout.classes]
    classifier.fit(torch.stack([x[name] for name in source.names]), labels)
    by_class = {label: torch.stack([x[name] for name, own in zip(source.names, labels) if own == label]) for label in map(str, classifier.classes_)}
    rows: list[Row] = []
    for path in images:
        rows += _classified(classifier, path, decoding)
    return rows, by_class


def _classified(classifier: Classifier, path: Path, decoding: Decoding) -> list[Row]:
    if path.is_file() and path.suffix.lower() != ".zip":
        files, name = Source(path.parent, (path.name,), ("",)), {path.name: str(path)}
    else:
        files = open_source(path, "--images")
        name = {inside: str(path / inside) for inside in files.names}
    x, problems = _read(files, decoding)
    answers = dict(zip(x, classifier.answers(torch.stack(list(x.values()))))) if x else {}
    return [Row(shown(name[inside]), answers.get(inside), problems.get(inside, ""), x.get(inside)) for inside in files.names]


def _read(source: Source, decoding: Decoding) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The images of a source by name, and a line for each that cannot be read."""
    x, rows, (_, *failures) = decode(source, decoding)
    images = dict(zip((source.names[i] for i in rows.tolist()), x))
    return images, dict(zip((name for name in source.names if name not in images), failures))


def write_table(rows: Sequence[Row], path: Path | None) -> str:
    """The rows as CSV, or as JSON where the file is called so; written to the file where one is given."""
    plain = [row.plain() for row in rows]
    if path is not None and path.suffix.lower() == ".json":
        text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(plain[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        text = buffer.getvalue()
    if path is not None:
        write_atomic(path, text.encode())
    return text


def counts(rows: Sequence[Row]) -> str:
    """How many images were given each answer, as a line."""
    told: dict[str, int] = {}
    for row in rows:
        answer = "cannot be read" if row.answer is None else str(row.answer.label) if row.answer.known else NONE
        told[answer] = told.get(answer, 0) + 1
    return ", ".join(f"{count} {answer}" for answer, count in sorted(told.items(), key=lambda item: -item[1]))
