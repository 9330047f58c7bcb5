"""One-shot runs as Lake's, drawn from Omniglot: within an alphabet, a character of one drawer to learn from and of another one to classify.

    python benchmarks/one_shot_runs.py data/omniglot/images_evaluation.zip runs.zip
    mfk evaluate RUN --one-shot-runs runs.zip

Lake's own 20 runs are from ten of the evaluation alphabets; these are two runs of each alphabet, 40 in all. A run is 20 characters of one alphabet,
drawn once by each of two drawers. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
import random
import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

from metaflowkit.datasets.one_shot_runs import LABELS
from metaflowkit.datasets.source import open_source
from metaflowkit.errors import DataError

WAY = 20
DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes at every call


def draw_runs(root: Path, output: Path, runs_per_alphabet: int = 2, seed: int = 0) -> int:
    """Write one-shot runs into a zip, and return their number.

    Args:
        root: Omniglot's evaluation set, a folder or zip of ``<alphabet>/<character>/<id>_<drawer>.png``.
        output: path of the zip.
        runs_per_alphabet: their number for each alphabet.
        seed: of the draw.

    Raises:
        DataError: an alphabet has fewer than 20 characters or two drawers.
    """
    source, generator = open_source(root), random.Random(seed)
    drawings: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for name in source.names:
        path = PurePosixPath(name)
        drawings[path.parent.parent.name][path.parent.name][path.stem.rpartition("_")[2]] = name
    number = 0
    with source.opened() as read, zipfile.ZipFile(output, "w") as archive:

        def write(name: str, content: str | bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, DATE), content)

        for alphabet, characters in sorted(drawings.items()):
            drawers = sorted(set.intersection(*(set(by_drawer) for by_drawer in characters.values())))
            if len(characters) < WAY or len(drawers) < 2:
                raise DataError(f"{root}: {alphabet} has {len(characters)} characters by {len(drawers)} drawers; a run needs {WAY} by 2")
            for _ in range(runs_per_alphabet):
                number += 1
                run, pair = f"run{number:02}", generator.sample(drawers, 2)
                chosen = generator.sample(sorted(characters), WAY)
                order, lines = generator.sample(range(WAY), WAY), []
                for i, character in enumerate(chosen):
                    example, item = f"{run}/training/class{i + 1:02}.png", f"{run}/test/item{order[i] + 1:02}.png"
                    for name, drawer in ((example, pair[0]), (item, pair[1])):
                        write(name, read(characters[character][drawer]))
                    lines.append(f"{item} {example}\n")
                write(f"{run}/{LABELS}", "".join(sorted(lines)))
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="Omniglot's evaluation set, a folder or zip")
    parser.add_argument("output", type=Path, help="the zip to write")
    parser.add_argument("--runs-per-alphabet", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(draw_runs(arguments.root, arguments.output, arguments.runs_per_alphabet, arguments.seed), "runs")
