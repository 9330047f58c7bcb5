"""mfk init --data: what a folder of images holds, and a pipeline that fits it, from photographs to whatever else lies in folders."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from metaflowkit.augment.levels import level_operations
from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.datasets.survey import survey
from metaflowkit.errors import DataError


def mfk(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def noise(seed: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write_classes(root: Path, classes: int, each: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> Path:
    for c in range(classes):
        (root / f"class{c:02d}").mkdir(parents=True)
        for i in range(each):
            noise(100 * c + i, size, mode).save(root / f"class{c:02d}" / f"{i}.png")
    return root


def test_what_is_found_is_what_is_there(tmp_path) -> None:
    root = write_classes(tmp_path / "photos", 7, 12)
    noise(0, (50, 30)).save(root / "class06" / "large.png")
    (root / "class01" / "again.png").write_bytes((root / "class01" / "3.png").read_bytes())
    (root / "class02" / "elsewhere.png").write_bytes((root / "class05" / "4.png").read_bytes())
    (root / "class03" / "cut.png").write_bytes((root / "class03" / "3.png").read_bytes()[:300])
    (root / "class04" / "no image.jpg").write_text("text")
    surveyed = survey(root)
    assert (surveyed.kind, surveyed.images, surveyed.sizes, surveyed.grey) == ("classes", 7 * 12 + 3, (20, 20, 30), False)
    assert surveyed.counts == {**{f"class{c:02d}": 12 for c in range(7)}, "class06": 13, "class01": 13, "class02": 13}
    assert [line.partition(":")[0] for line in surveyed.failures] == ["class03/cut.png", "class04/no image.jpg"]
    assert surveyed.duplicates == (("class01/3.png", "class01/again.png"), ("class02/elsewhere.png", "class05/4.png"))
    assert surveyed.across == surveyed.duplicates[1:]
    text = "\n".join(surveyed.lines())
    assert "87 images, colour, shorter side 20 to 30 (median 20) pixels" in text
    assert "7 classes of 12 to 13 images" in text
    assert "2 files repeat the content of another, such as class01/3.png = class01/again.png" in text
    assert "1 contents lie in several classes or splits, such as class02/elsewhere.png = class05/4.png" in text


@pytest.mark.parametrize(
    ("classes", "each", "expected"),
    [
        (20, 12, {"dataset.fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, "evaluate.way": 5, "evaluate.query": 7, "tasks.way": 30}),
        (10, 30, {"dataset.split_by": "image", "dataset.fractions": None, "evaluate.way": 5, "evaluate.query": 5, "tasks.way": 30, "tasks.meta_batch": 2}),
        (3, 40, {"dataset.split_by": "image", "evaluate.way": 3, "evaluate.query": 7, "evaluate.shot": [1]}),
        (10, 8, {"dataset.split_by": "class", "evaluate.way": 3, "evaluate.query": 7}),
        (10, 5, {"dataset.split_by": "class", "evaluate.way": 3, "evaluate.query": 4, "tasks.way": 10}),
        (3, 5, {"dataset.layout": "flat"}),
        (8, 1, {"dataset.layout": "flat"}),
    ],
)
def test_the_pipeline_fits_and_takes_a_step(tmp_path, classes, each, expected) -> None:
    root = write_classes(tmp_path / "photos", classes, each)
    text = mfk("init", "--data", root, tmp_path / "mine")
    pipeline = read(tmp_path / "mine" / "photos.yaml")
    plain = pipeline.plain()
    for path, value in expected.items():
        section, key = path.split(".")
        assert plain[section][key] == value, (path, plain[section][key])
    assert (plain["dataset"]["image_size"], plain["dataset"]["mode"]) == (20, "color")
    flow = build(read(tmp_path / "mine" / "photos.yaml", ["device=cpu"]))
    assert flow.learner.outcome(flow.episode(1)).value.isfinite()
    for split in ("val", "test") if expected.get("dataset.layout") != "flat" else ():
        assert min(np.bincount(flow.splits[split].y.numpy())) >= max(np.atleast_1d(plain["evaluate"]["shot"])) + plain["evaluate"]["query"]
    assert text.splitlines()[0].startswith(f"{root}: {classes * each} images, colour, shorter side 20 pixels")
    assert text.splitlines()[-1] == f"next: mfk run {tmp_path / 'mine' / 'photos.yaml'}"
    assert all(f"# {line}" in (tmp_path / "mine" / "photos.yaml").read_text() for line in text.splitlines()[:-2] if line)


def test_grey_ink_on_paper_in_splits(tmp_path) -> None:
    drawing = np.full((28, 28), 255, dtype=np.uint8)
    for split, classes in (("train", 4), ("val", 2), ("test", 2)):
        for c in range(classes):
            folder = tmp_path / "ink" / split / f"{split}{c}"
            folder.mkdir(parents=True)
            for i in range(6):
                drawing[(c + i) % 28, i : i + 9] = 0
                Image.fromarray(drawing).save(folder / f"{i}.png")
    surveyed = survey(tmp_path / "ink")
    assert (surveyed.kind, surveyed.grey, surveyed.ink_on_paper) == ("splits", True, True)
    assert {split: len(counts) for split, counts in surveyed.splits.items()} == {"train": 4, "val": 2, "test": 2}
    mfk("init", "--data", tmp_path / "ink", tmp_path)
    dataset = read(tmp_path / "ink.yaml").plain()["dataset"]
    assert (dataset["mode"], dataset["invert"], dataset["fractions"]) == ("grey", True, None)
    pipeline = read(tmp_path / "ink.yaml", ["augment={level: 2}"])  # the override that the file names
    assert pipeline.augment.level == 2
    bends, *others = read(tmp_path / "ink.yaml").plain()["augment"]
    assert (bends["name"], bends["kernel_size"], bends["sigma"]) == ("RandomElasticTransform", [15, 15], [3.5, 3.5])
    assert others == level_operations(3, "grey")


def test_folders_below_those_of_the_classes(tmp_path) -> None:
    for i in range(24):
        folder = tmp_path / "scripts" / f"script{i // 4}" / f"character{i % 4}"
        folder.mkdir(parents=True)
        for k in range(3):
            noise(3 * i + k).save(folder / f"{k}.png")
    mfk("init", "--data", tmp_path / "scripts", tmp_path / "a")
    text = (tmp_path / "a" / "scripts.yaml").read_text()
    assert "# 6 classes of 12 images\n# the images lie in 24 folders below those of the classes; where each of these is a class, give --depth 2\n" in text
    out = mfk("init", "--data", tmp_path / "scripts", "--depth", 2, tmp_path / "b")
    assert "24 classes of 3 images\n\n" in out
    splits = build(read(tmp_path / "b" / "scripts.yaml")).splits
    assert {name: len(splits[name].classes) for name in ("val", "test")} == {"val": 5, "test": 5}
    assert "mfk init: --depth counts the folders of --data" in mfk("init", "--depth", 2, tmp_path / "c", code=2)


def test_files_of_every_kind(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # larger ones are read, of more than twice as many are not
    root = write_classes(tmp_path / "odd", 6, 3)
    noise(1, mode="CMYK").save(root / "class00" / "cmyk.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 20), dtype=np.uint16)).save(root / "class01" / "sixteen.png")
    noise(2, mode="P").save(root / "class02" / "animated.gif", save_all=True, append_images=[noise(3, mode="P")])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    noise(4, (40, 20)).save(root / "class03" / "turned.jpg", exif=exif)
    Image.new("RGB", (1_100, 1_000), "green").save(root / "class04" / "large.png")
    bomb = io.BytesIO()
    Image.new("1", (2_000, 2_000)).save(bomb, "png")
    (root / "class05" / "bomb.png").write_bytes(bomb.getvalue())
    os.symlink(root, root / "class05" / "loop")
    (root / "class05" / "a\n\x1b[31mb.png").write_bytes((root / "class05" / "0.png").read_bytes())
    surveyed = survey(root)
    assert surveyed.images == 6 * 3 + 5 + 1
    assert [line.partition(":")[0] for line in surveyed.failures] == ["class05/bomb.png"]
    assert "decompression bomb" in surveyed.failures[0]
    assert surveyed.sizes == (20, 20, 1_000)
    text = mfk("init", "--data", root, tmp_path)
    assert "\x1b" not in text
    written = tmp_path / "odd.yaml"
    assert "\x1b" not in written.read_text()
    assert read(written).plain()["dataset"]["unreadable"] == "skip"
    assert build(read(written)).splits["test"].x.shape[1:] == (3, 20, 20)


def test_images_without_classes_in_a_zip(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a zip.zip", "w") as archive:
        for i in range(6):
            content = io.BytesIO()
            noise(i).save(content, "png")
            archive.writestr(f"top/{i}.png", content.getvalue())
    text = mfk("init", "--data", tmp_path / "a zip.zip", tmp_path)
    assert "no classes: no folder per class" in text
    assert text.splitlines()[-1] == f"next: mfk run {tmp_path / 'a-zip.yaml'}"
    assert read(tmp_path / "a-zip.yaml").plain()["tasks"]["way"] == 3


def test_what_cannot_be_looked_at_leaves_nothing_behind(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no image" in mfk("init", "--data", tmp_path / "empty", tmp_path / "out", code=1)
    assert "does not exist; set --data to" in mfk("init", "--data", tmp_path / "nowhere", tmp_path / "out", code=1)
    (tmp_path / "empty" / "a.png").write_text("no image")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        survey(tmp_path / "empty")
    assert "--data writes a pipeline of its own, and takes no template, got 'quickstart'" in mfk(
        "init", "quickstart", tmp_path / "out", "--data", tmp_path / "empty", code=2
    )
    root = write_classes(tmp_path / "photos", 6, 3)
    (tmp_path / "photos.yaml").write_text("mine")
    assert "exists already" in mfk("init", "--data", root, tmp_path, code=2)
    assert (tmp_path / "photos.yaml").read_text() == "mine"
    assert not (tmp_path / "out").exists()
