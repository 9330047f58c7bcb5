"""One-shot runs in Lake's format: read from a folder and a zip alike, and each malformed file named with its line."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.datasets.images import Decoding
from metaflowkit.datasets.one_shot_runs import read_one_shot_runs
from metaflowkit.errors import DataError

DECODING = Decoding(8, "grey", invert=True)


def write_runs(folder: Path, runs: int = 2, way: int = 3, size: int = 8) -> Path:
    """Runs whose test image i shows, with a little noise, the training image of class (i + 1) mod way; black ink on white."""
    generator = np.random.default_rng(0)
    for r in range(1, runs + 1):
        run = folder / f"run{r:02}"
        (run / "training").mkdir(parents=True)
        (run / "test").mkdir()
        lines = []
        drawings = generator.integers(0, 200, (way, size, size))
        for i in range(way):
            Image.fromarray(drawings[i].astype(np.uint8)).save(run / "training" / f"class{i + 1:02}.png")
            own = drawings[(i + 1) % way] + generator.integers(0, 20, (size, size))
            Image.fromarray(own.astype(np.uint8)).save(run / "test" / f"item{i + 1:02}.png")
            lines.append(f"run{r:02}/test/item{i + 1:02}.png run{r:02}/training/class{(i + 1) % way + 1:02}.png")
        (run / "class_labels.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_folder_and_zip_at_any_depth(tmp_path) -> None:
    folder = write_runs(tmp_path / "runs")
    (folder / "README.txt").write_text("not a run")
    runs = read_one_shot_runs(folder, DECODING)
    assert [run.name for run in runs] == ["run01", "run02"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, f"all_runs/{path.relative_to(folder)}")
    for run, zipped in zip(runs, read_one_shot_runs(tmp_path / "all.zip", DECODING), strict=True):
        assert run.training.shape == run.test.shape == (3, 1, 8, 8)
        assert run.labels.tolist() == zipped.labels.tolist() == [1, 2, 0]
        assert torch.equal(run.training, zipped.training)
        assert torch.equal(run.test, zipped.test)
        assert (run.training[run.labels].int() - run.test.int()).abs().max() < 20
    first = np.asarray(Image.open(folder / "run01" / "training" / "class01.png"))
    assert np.array_equal(runs[0].training[0, 0].numpy(), 255 - first)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda run: [shutil.rmtree(path) for path in run.parent.iterdir()],
            "holds no image (.png, .jpg, .jpeg, .bmp, .gif, .webp, .tif, .tiff); set --one-shot-runs to",
        ),
        (
            lambda run: [shutil.move(path, path.parent / f"no {path.name}") for path in run.parent.glob("*/t*")],
            "holds no one-shot run; a run is a folder with training/, test/",
        ),
        (lambda run: (run / "class_labels.txt").unlink(), "run01/class_labels.txt is missing or cannot be read; a run is a folder"),
        (lambda run: (run / "class_labels.txt").write_bytes(b"\xff\xfe"), "run01/class_labels.txt is no UTF-8 text"),
        (lambda run: shutil.rmtree(run / "test"), "run01: has 3 training and 0 test images, and needs two classes and a test image"),
        (
            lambda run: append(run, "run01/test/item01.png"),
            "run01/class_labels.txt, line 4: must name a test image and a training image, got 'run01/test/item01.png'",
        ),
        (
            lambda run: append(run, "run01/test/item09.png run01/training/class01.png"),
            "line 4: run01/test/item09.png is no image in run01/test; correct the line",
        ),
        (lambda run: append(run, "run01/test/item01.png run02/training/class01.png"), "line 4: run02/training/class01.png is no image in run01/training"),
        (
            lambda run: append(run, "run01/test/item01.png run01/training/class01.png"),
            "line 4: run01/test/item01.png has a class already; remove one of its lines",
        ),
        (lambda run: shutil.copy(run / "test" / "item01.png", run / "test" / "item04.png"), "gives no class to run01/test/item04.png; add a line for each"),
        (lambda run: (run / "class_labels.txt").write_text(""), "gives no class to run01/test/item01.png and 2 more; add a line for each"),
        (
            lambda run: shutil.copy(run / "test" / "item01.png", run / "training" / "class04.png"),
            "run02 has 3 training and 3 test images, run01 has 4 training",
        ),
        (lambda run: (run / "test" / "item01.png").write_bytes(b"x"), "1 of 12 images cannot be read"),
    ],
)
def test_what_is_refused(damage, says, tmp_path) -> None:
    folder = write_runs(tmp_path / "runs", runs=2)
    damage(folder / "run01")
    with pytest.raises(DataError) as refused:
        read_one_shot_runs(folder, DECODING)
    assert says in str(refused.value)


def append(run: Path, line: str) -> None:
    with (run / "class_labels.txt").open("a") as file:
        file.write(line + "\n")
