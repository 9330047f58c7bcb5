"""mfk predict as a user starts it: a folder per class, images to classify, a table and a sheet; and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from metaflowkit.cli import main
from metaflowkit.prediction.classifier import Classifier
from tests.prediction.drawings import drawings

COLUMNS = ["file", "class", "probability", "runner_up", "runner_up_probability", "none_of_these", "problem"]


def mfk(*arguments: object, code: int = 0):
    result = CliRunner().invoke(main, ["predict", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_the_table_holds_the_answers_of_the_classifier(runs, folders, tmp_path) -> None:
    support, new = folders
    (new / "broken.png").write_text("no image")
    shown = mfk(runs["per_step"], "--support", support, "--images", new, "-o", tmp_path / "out.csv")
    assert shown.stdout.startswith(f"written: {tmp_path / 'out.csv'}\n10 images: ")
    assert "1 cannot be read" in shown.stdout
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == COLUMNS
    assert [row["file"] for row in rows] == [str(new / f"{i}.png") for i in range(9)] + [str(new / "broken.png")]
    assert rows[-1] == {**dict.fromkeys(COLUMNS, ""), "file": str(new / "broken.png"), "problem": "broken.png: is no image in a known format"}
    classifier = Classifier(runs["per_step"]).fit([p for p in sorted(support.rglob("*.png"))], [p.parent.name for p in sorted(support.rglob("*.png"))])
    for row, answer in zip(rows, classifier.answers(drawings(9, seed=1)[0])):
        assert (row["class"], row["runner_up"], row["none_of_these"]) == (answer.label, answer.runner_up, str(not answer.known))
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=6e-5)


def test_files_folders_and_zips_give_the_same_rows_in_every_format(runs, folders, tmp_path) -> None:
    support, new = folders
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for path in sorted(new.iterdir()):
            archive.write(path, path.name)
    printed = list(csv.DictReader(io.StringIO(mfk(runs["batch"], "--support", support, "--images", new).stdout)))
    one = json.loads(mfk(runs["batch"], "--support", support, "--images", new / "3.png", "--json").stdout)
    mfk(runs["batch"], "--support", support, "--images", tmp_path / "new.zip", "--images", new / "3.png", "-o", tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert len(written) == 10
    answers = [{key: str(row[key]) for key in COLUMNS[1:]} for row in written]
    assert answers[:9] == [{key: row[key] for key in COLUMNS[1:]} for row in printed]
    assert answers[9] == {key: str(one[0][key]) for key in COLUMNS[1:]} == answers[3]


def test_the_sheet_shows_labelled_and_predicted_images(runs, folders, tmp_path) -> None:
    support, new = folders
    mfk(runs["per_step"], "--support", support, "--images", new, "--sheet", tmp_path / "sheet.png", "--reject", 0)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    pixels = np.kron(drawings(9, seed=1)[0][0], np.ones((2, 2), dtype=np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, pixels.shape)[:, 20::68]  # the columns of tiles
    assert (windows == pixels).all((2, 3)).any()


def test_names_cannot_move_the_cursor(runs, folders, tmp_path) -> None:
    support, new = folders
    (support / "a").rename(support / "\x1b[31ma")
    (new / "0.png").rename(new / "\x1b[2J0.png")
    result = mfk(runs["per_step"], "--support", support, "--images", new, "--sheet", tmp_path / "sheet.png")
    assert "\x1b" not in result.output


def test_what_cannot_be_used_is_refused_and_nothing_is_written(runs, folders, tmp_path) -> None:
    support, new = folders
    out = tmp_path / "out.csv"

    def refused(support: object, images: object, *more: object, code: int = 1) -> str:
        text = mfk(runs["per_step"], "--support", support, "--images", images, "-o", out, *more, code=code).output
        assert not out.exists()
        return text

    assert "does not exist; set --support" in refused(tmp_path / "nowhere", new)
    assert "does not exist; set --images" in refused(support, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(support, tmp_path / "empty")
    assert "there is no 'nearest'" in refused(support, new, "--readout", "nearest", code=2)
    one = tmp_path / "one" / "a"
    one.mkdir(parents=True)
    (one / "0.png").write_bytes((support / "a" / "0.png").read_bytes())
    assert "1 class" in refused(tmp_path / "one", new)
    (support / "a" / "cut.png").write_bytes((support / "a" / "0.png").read_bytes()[:60])
    text = refused(support, new)
    assert "1 of 13 labelled images cannot be read; mend or remove them" in text
    assert "a/cut.png" in text
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "empty"), "--support", str(support), "--images", str(new)])
    assert result.exit_code == 1
