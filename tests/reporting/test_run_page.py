"""The page of a run: what it shows of finished and unfinished runs, of several, and of names that could be markup."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.config.pipeline import pipeline_of, read
from metaflowkit.reporting.figures import metric_figures
from metaflowkit.reporting.run_record import read_record
from metaflowkit.reporting.train import train
from metaflowkit.training.loop import events
from tests.conformance.test_metric_loggers import TINY
from tests.reporting.hostile import NAMES, hostile_run
from tests.small import SMALL

pytestmark = pytest.mark.pages


@pytest.fixture
def run(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    report = train(read(tmp_path / "small.yaml"), tmp_path / "run")
    return tmp_path / "run", report


def mfk(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_writes_its_page_with_everything(run) -> None:
    folder, report = run
    text = unescape((folder / "report.html").read_text())
    for a, b, difference in zip(report.after, report.before, report.differences()):
        assert f"<td>{a.setting}</td><td>{b}</td><td>{a}</td><td>{difference}" in text
    assert text.index(str(report.after[0])) < text.index("Validation by outer step") < text.index("Metrics of the outer steps")
    assert report.protocol in text
    metrics = {key for line in (folder / "metrics.jsonl").read_text().splitlines() for key in json.loads(line) if key.startswith("train/")}
    for name in metrics:
        assert f"alt='{name.removeprefix('train/').replace('_', ' ')}'" in text
    for title in ("The first training task", "Held-out classes in the embedding", "What is taken for what", "To make it again"):
        assert f"<h2>{title}</h2>" in text
    assert (folder / "pipeline.yaml").read_text() in text
    assert "torch 2." in text
    assert not re.search(r"(src|href)=.(?!data:)", text)  # it opens offline


def test_inner_losses_are_drawn_against_the_inner_steps_at_their_first_and_last_measurement(tmp_path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    list(events(read(tmp_path / "small.yaml", ["inner.steps=3", "evaluate.every=1"]), tmp_path / "run", test=False))
    record = read_record(tmp_path / "run")
    figures = metric_figures(record)
    assert not {"train/inner_loss_after_1", "train/inner_loss_after_2"} & set(figures)
    first, last = ([line for line in record.lines if "train/inner_loss_after" in line][i] for i in (0, -1))
    (axes,) = figures["inner loss by inner step"].axes
    for curve, line in zip(axes.lines, (first, last), strict=True):
        names = ("before", "after_1", "after_2", "after")
        assert curve.get_xydata().tolist() == [[k, line[f"train/inner_loss_{name}"]] for k, name in enumerate(names)]
        assert curve.get_label() == f"outer step {line['step']}"


def test_tasks_with_their_own_measurement(tmp_path) -> None:
    train(pipeline_of(TINY), tmp_path / "run")
    text = unescape((tmp_path / "run" / "report.html").read_text())
    assert "<p class='lead'>3-shot, 1 step: test mse " in text  # what training aims at, and not the model before its inner steps
    assert "Held-out classes" not in text
    assert text.count("<tr><td>3-shot, ") == 2


def test_made_again_it_says_the_same(run) -> None:
    folder, _ = run
    first = (folder / "report.html").read_text()
    assert mfk("report", folder) == f"written: {folder / 'report.html'}\n"

    def plain(text: str) -> str:
        return re.sub(r"4 outer steps in \d+ s", "4 outer steps", text)

    assert plain((folder / "report.html").read_text()) == plain(first)


def test_a_run_that_goes_on(tmp_path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    stream = events(read(tmp_path / "small.yaml"), tmp_path / "run")
    while type(next(stream)).__name__ != "Stepped":
        pass
    stream.close()
    mfk("report", tmp_path / "run")
    text = unescape((tmp_path / "run" / "report.html").read_text())
    assert f"not finished: 1 of 4 outer steps; go on with mfk run --run-dir {tmp_path / 'run'} --resume" in text
    assert "Validation accuracy: " in text
    assert "Held-out classes in the embedding" in text  # by the weights of the newest checkpoint


def test_before_the_first_checkpoint_and_without_data(run, tmp_path) -> None:
    folder, _ = run
    shutil.rmtree(folder / "checkpoints")
    (folder / "report.md").unlink()
    mfk("report", folder)
    assert "No pictures of tasks and test classes: " in (text := (folder / "report.html").read_text())
    assert "holds no checkpoint" in text
    (folder / "pipeline.yaml").write_text(
        (folder / "pipeline.yaml").read_text().replace("name: glyphs", "name: omniglot").replace("train: [cyrillic]", f"root: {tmp_path / 'none'}")
    )
    pipeline = [
        line for line in (folder / "pipeline.yaml").read_text().splitlines() if not re.match(r"  (test|val_script|val_fraction|faces|min_faces|train):", line)
    ]
    (folder / "pipeline.yaml").write_text("\n".join(pipeline))
    mfk("report", folder)
    assert "holds neither images_background nor images_background.zip" in (folder / "report.html").read_text()


def test_several_runs_side_by_side(run, tmp_path) -> None:
    folder, report = run
    other = train(read(tmp_path / "small.yaml", ["inner.steps=2"]), tmp_path / "other")
    mfk("report", folder, tmp_path / "other", "-o", tmp_path / "both.html")
    text = unescape((tmp_path / "both.html").read_text())
    for a, b in zip(report.after, other.after):
        assert f"<td>test {a.setting}</td><td>{a}</td><td>{b}</td>" in text
    assert "<td>inner.steps</td><td>1</td><td>2</td>" in text
    assert "<td>seed</td>" not in text  # equal in both
    assert text.count("<h2>Run ") == 2


def test_signs_and_losses_are_said_before_the_pictures(run) -> None:
    folder, _ = run
    with open(folder / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"step": 4, "sign": "collapse", "text": "embeddings are one direction <b>"}) + "\n")
    mfk("report", folder)
    text = (folder / "report.html").read_text()
    assert text.index("step 4, collapse: embeddings are one direction &lt;b&gt;") < text.index("Validation by outer step")


def test_no_name_becomes_markup(tmp_path) -> None:
    page = hostile_run(tmp_path) / "report.html"
    text = page.read_text()
    tags = set(re.findall(r"<([a-z!/0-9]+)", text))
    assert not {"svg", "b", "script"} & tags
    assert "onerror=" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert not re.search("[\x1b\u202e]", text)
    assert len(NAMES) == 10


@pytest.mark.parametrize(("arguments", "says"), [
    (["nowhere"], "nowhere: is no run directory (it has no pipeline.yaml); give the folder that mfk run named"),
    ([], "Missing argument 'RUN...'"),
])  # fmt: skip
def test_no_run(arguments, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["report", *arguments])
    assert result.exit_code in (1, 2)
    assert says in result.output
