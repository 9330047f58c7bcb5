"""Measuring a finished run: scores against a direct evaluation of the saved weights, the lines that are added, every other byte of the run kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.datasets.images import Decoding
from metaflowkit.datasets.one_shot_runs import read_one_shot_runs
from metaflowkit.errors import CheckpointError, ConfigError, DataError, RunError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.measurement import protocol
from metaflowkit.evaluation.scores import Score
from metaflowkit.reporting.run_record import read_record
from metaflowkit.reporting.train import train
from metaflowkit.training import checkpoint
from metaflowkit.training.evaluate_run import evaluate_run, evaluate_run_on_one_shot_runs, load
from metaflowkit.training.loop import events
from tests.datasets.test_one_shot_runs import write_runs

SMALL = """
device: cpu
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}
model: {backbone: {name: conv4, width: 4}}
inner: {steps: 1}
outer: {steps: 4, optimizer: {name: adam, lr: 0.3}}
evaluate: {every: 2, way: 3, query: 2, episodes: 30, val_episodes: 4, readouts: [prototype]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose best weights are those of step 2, far from the last ones of step 4."""
    folder = tmp_path_factory.mktemp("measure")
    (folder / "small.yaml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:  # the cache of conftest, which a fixture of the module comes before
        patch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))
        train(read(folder / "small.yaml"), folder / "run")
    shutil.copy(folder / "run" / "checkpoints" / "step-0000002.pt", folder / "run" / "checkpoints" / "best.pt")
    return folder / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def appended(run: Path, before: dict[str, bytes]) -> list[dict]:
    """The lines that were added to evaluations.jsonl, once nothing else is seen to have changed."""
    after = files(run)
    earlier, now = before.pop("evaluations.jsonl"), after.pop("evaluations.jsonl")
    assert after == before
    assert now.startswith(earlier)
    return [json.loads(line) for line in now[len(earlier) :].decode().splitlines()]


def direct(run: Path, name: str, *overrides: str, split: str = "test", way: int = 3, shot: int = 1, query: int = 2, episodes: int = 30) -> Score:
    """Prototype accuracy of the weights in a checkpoint file, without evaluate_run."""
    flow = build(read(run / "pipeline.yaml", overrides), train=False)
    flow.learner.model.load_state_dict(torch.load(run / "checkpoints" / name, weights_only=True)["model"])
    (score,) = evaluate(flow, split, way, shot, query, episodes, ["prototype"])
    return score


def measure(run: Path, *overrides: str, split: str = "test", weights: str = "best", readouts=("prototype",), **sizes: int) -> list[Score]:
    return evaluate_run(run, overrides, split, weights, readouts, sizes)[0]


def test_best_and_last_weights_are_those_of_their_files(run) -> None:
    best, last = measure(run, weights="best"), measure(run, weights="last")
    assert best == [direct(run, "best.pt")]
    assert last == [direct(run, "step-0000004.pt")]
    assert best[0].value != last[0].value


@pytest.mark.parametrize("norm", ["batch", "per_step"])
def test_untrained_weights_score_as_the_run_measured_them_before_its_first_step(tmp_path, norm) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    *_, report = events(read(tmp_path / "small.yaml", [f"model.backbone.norm={norm}", "evaluate.episodes=8", "outer.steps=2"]), tmp_path / "run")
    scores, _ = evaluate_run(tmp_path / "run", [], "test", "untrained", ["prototype"], {})
    assert scores == [score for score in report.before if score.setting.readout == "prototype"]
    assert scores != [score for score in report.after if score.setting.readout == "prototype"]
    line = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert (line["weights"], line["step"]) == ("untrained", 0)
    (elsewhere,) = measure(tmp_path / "run", "dataset=digits", weights="untrained", way=10)
    assert 0.1 < elsewhere.value < 1


def test_repeated_measurements_do_not_enter_the_report(run) -> None:
    text = read_record(run).report.markdown()
    for weights in ("untrained", "best"):
        measure(run, "dataset=digits", weights=weights, way=9)
    assert read_record(run).report.markdown() == text


@pytest.mark.parametrize(("weights", "name"), [("best", "best.pt"), ("last", "step-0000004.pt")])
def test_a_loaded_run_is_its_flow_with_these_weights(run, weights, name) -> None:
    before = files(run)
    flow = load(run, weights)
    (score,) = evaluate(flow, "test", 3, 1, 2, 30, ["prototype"])
    assert score == direct(run, name) == measure(run, weights=weights)[0]
    assert flow.pipeline.plain() == read(run / "pipeline.yaml").plain()
    other = load(str(run), weights, ["dataset=digits"])
    assert {split: len(images.classes) for split, images in other.splits.items()}["test"] == 10
    assert files(run) == {**before, "evaluations.jsonl": files(run)["evaluations.jsonl"]}


def test_images_of_another_data_set_are_converted_to_the_shape_of_the_training_images(run, tmp_path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for i in range(5):
            colour = tuple(np.random.default_rng(i).integers(0, 256, 3).tolist())
            Image.new("RGB", (40, 30), colour).save(tmp_path / "photographs" / name / f"{i}.png")
    photographs = f"dataset={{name: folder, root: {tmp_path / 'photographs'}, mode: color, image_size: 20, fractions: {{test: 1.0}}}}"
    flow = load(run, "best", [photographs])
    assert flow.splits["test"].x.shape == (15, 1, 28, 28)
    scores, text = evaluate_run(run, [photographs], "test", "best", ["prototype"], {})
    assert "images of 3x20x20 are converted to 1x28x28, the size of the training images" in text
    assert scores == evaluate(flow, "test", 3, 1, 2, 30, ["prototype"])
    with pytest.raises(CheckpointError, match="keep model, inner.steps, image size and channels as in the run"):
        load(run, "best", ["model.backbone.width=8"])


def test_one_shot_runs_against_the_nearest_training_image_in_the_embedding(run, tmp_path) -> None:
    root, before = write_runs(tmp_path / "runs", runs=3, way=4, size=28), files(run)
    (score,), text = evaluate_run_on_one_shot_runs(run, root)
    lines = appended(run, before)
    flow = load(run)
    expected = []
    for one in read_one_shot_runs(root, Decoding(28, "grey", invert=True)):
        support, query = (torch.nn.functional.normalize(embed(flow.model, flow.inputs(x)[None])[0], dim=1) for x in (one.training, one.test))
        expected.append(((query @ support.T).argmax(1) == one.labels).double().mean().item())
    assert score.each == tuple(expected)
    assert (score.split, str(score.setting), score.setting.query, score.counted) == ("one-shot runs", "4-way 1-shot, prototype", 1, "runs")
    assert text.endswith(f"3 one-shot runs of {root}, black and white swapped")
    assert "drawn" not in text
    assert [line["each"] for line in lines] == [[round(value, 6) for value in expected]]
    shown = CliRunner().invoke(main, ["evaluate", str(run), "--one-shot-runs", str(root), "--no-invert", "--readout", "adapted", "--readout", "prototype"])
    assert shown.exit_code == 0
    assert shown.output.count("one-shot runs 4-way 1-shot, ") == 2
    assert "colours as they are" in shown.output
    for option, value in (("--way", "5"), ("--split", "test")):
        refused = CliRunner().invoke(main, ["evaluate", str(run), "--one-shot-runs", str(root), option, value])
        assert (refused.exit_code, refused.output) == (2, f"{option}: is given by the one-shot runs themselves; leave it out\n")


def test_a_checkpoint_without_the_shape_of_its_images_is_refused_for_one_shot_runs(run, tmp_path) -> None:
    older = shutil.copytree(run, tmp_path / "older")
    snapshot = checkpoint.load(older / "checkpoints" / "best.pt")
    snapshot.shape = []
    checkpoint.save(snapshot, older / "checkpoints" / "best.pt")
    with pytest.raises(CheckpointError, match="does not say the shape of the images, since an earlier version wrote it"):
        evaluate_run_on_one_shot_runs(older, write_runs(tmp_path / "runs"))


def test_weights_that_there_are_not_are_refused(run, tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(run, "bets")
    assert str(caught.value) == "weights: there is no 'bets'; did you mean 'best'?"
    with pytest.raises(RunError, match=r"is no run directory \(it has no pipeline\.yaml\); give the folder that mfk run named"):
        load(tmp_path)


@pytest.mark.parametrize(("weights", "step"), [("best", 2), ("last", 4)])
def test_a_line_is_added_for_each_score_and_no_other_byte_changes(run, weights, step) -> None:
    before = files(run)
    overrides, readouts = ["evaluate.shot=[1, 2]", "evaluate.episodes=4"], ["logistic", "prototype", "adapted"]
    scores, text = evaluate_run(run, overrides, "val", weights, readouts, {})
    lines = appended(run, before)
    assert [(s.setting.shot, s.setting.readout) for s in scores] == [(shot, readout) for shot in (1, 2) for readout in readouts]
    for score, line in zip(scores, lines, strict=True):
        assert datetime.strptime(line.pop("time"), "%Y-%m-%d %H:%M:%S") <= datetime.now()
        assert line == {"weights": weights, "step": step, "overrides": overrides, "protocol": text, **score.plain()}
    assert {line["split"] for line in lines} == {"val"}


def test_the_protocol_is_that_of_the_pipeline_with_its_overrides(run) -> None:
    overrides = ["evaluate.seed=9", "inner.steps=3", "evaluate.views=4", "evaluate.episodes=2"]
    _, text = evaluate_run(run, overrides, "test", "best", ["adapted"], {})
    assert text == protocol(build(read(run / "pipeline.yaml", overrides), train=False), ["adapted"])
    assert "3 inner steps on 4 augmented views" in text
    assert "seed 9" in text
    assert "adapted" not in evaluate_run(run, overrides, "test", "best", ["prototype"], {})[1]


def test_sizes_reach_the_scores(run) -> None:
    (score,) = measure(run, way=4, shot=2, query=3, episodes=25)
    assert (score.setting.way, score.setting.shot, score.setting.query, score.episodes) == (4, 2, 3, 25)
    assert score == direct(run, "best.pt", way=4, shot=2, query=3, episodes=25)


def test_sizes_that_are_not_given_come_from_the_pipeline(run) -> None:
    (score,) = measure(run, shot=2)
    assert (score.setting.way, score.setting.shot, score.setting.query, score.episodes) == (3, 2, 2, 30)


def test_a_size_prevails_over_an_override(run) -> None:
    (score,) = measure(run, "evaluate.way=5", "evaluate.episodes=4", way=2)
    assert (score.setting.way, score.episodes) == (2, 4)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_split_has_its_labels_also_after_self_supervised_training(run, split) -> None:
    (score,) = measure(run, split=split)
    assert score == direct(run, "best.pt", split=split)
    assert score.split == split


def test_weights_of_letters_are_measured_on_digits(run) -> None:
    before = files(run)
    (score,) = measure(run, "dataset=digits", way=10, shot=5)
    (line,) = appended(run, before)
    assert score == direct(run, "best.pt", "dataset=digits", way=10, shot=5)
    assert score.value > 1 / 10
    assert "adapted" not in line["protocol"]
    assert (line["overrides"], line["way"], line["accuracy"]) == (["dataset=digits"], 10, score.value)
    with pytest.raises(DataError, match=r"^way 11 with shot 1 and query 2 needs 11 classes of 3 images, the split has 10 of its 10 classes"):
        measure(run, "dataset=digits", way=11)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.backbone.width=8", r"backbone\.blocks\.0\.conv\.weight is \(4, 1, 3, 3\) there and \(8, 1, 3, 3\) here; .* and 9 more"),
        ("model.head=linear", r"head\.weight is not there and \(3, 4\) here; head\.bias is not there and \(3,\) here"),
        ("model.backbone=mlp", r"backbone\.layers\.0\.weight is not there and .* more"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_written(run, override, reason) -> None:
    before = files(run)
    with pytest.raises(CheckpointError) as caught:
        measure(run, override)
    assert str(caught.value).startswith(f"{run}/checkpoints/best.pt: its weights do not fit this model (")
    caught.match(rf" \({reason}\); keep model, inner.steps, image size and channels as in the run$")
    assert "\n" not in str(caught.value)
    assert files(run) == before


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    snapshot = checkpoint.load(path)
    checkpoint.save(dataclasses.replace(snapshot, pipeline=snapshot.pipeline.replace("steps: 1\n", "steps: 7\n")), path)
    with pytest.raises(CheckpointError) as caught:
        measure(tmp_path / "run")
    assert (
        str(caught.value)
        == f"{path}: belongs to another pipeline; inner.steps is 7 there and 1 here; put the file of this run back, or start it again with --overwrite"
    )


def test_an_unknown_override_and_an_impossible_size_are_refused_and_nothing_is_written(run) -> None:
    before = files(run)
    with pytest.raises(ConfigError, match=r"^--set inner\.stepz=3: inner\.stepz: is no known key; did you mean 'steps'\?$"):
        measure(run, "inner.stepz=3")
    with pytest.raises(ConfigError, match=r"evaluate\.episodes: must be a whole number of at least 2, got 1"):
        measure(run, episodes=1)
    assert files(run) == before


def test_a_folder_that_is_no_run_is_refused_and_stays(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError) as caught:
        measure(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is no run directory (it has no pipeline.yaml); give the folder that mfk run named"
    assert files(tmp_path) == {"thesis.tex": b"x"}


def test_a_run_without_the_weights_asked_for_is_refused(run, tmp_path) -> None:
    shutil.copy(run / "pipeline.yaml", tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoints: holds no checkpoint; start the run again with --overwrite$"):
        measure(tmp_path, weights="last")
    with pytest.raises(CheckpointError, match=r"checkpoints/best\.pt: is no whole checkpoint"):
        measure(tmp_path, weights="best")
    checkpoint.save(checkpoint.load(run / "checkpoints" / "best.pt"), tmp_path / "checkpoints" / "best.pt")
    assert measure(tmp_path) == [direct(run, "best.pt")]


def test_a_head_with_a_row_per_class_is_measured_at_other_ways_without_adapting(run, tmp_path) -> None:
    """Weights of a three-way linear head: five ways by the embedding alone, and the protocol says why."""
    other = tmp_path / "run"
    path = tmp_path / "linear.yaml"
    path.write_text(SMALL + "\n".join(["", "seed: 1"]))
    train(read(path, ["model.head=linear", "inner.loss=cross_entropy", "outer.steps=1"]), other)
    scores, text = evaluate_run(other, [], "test", "best", None, {"way": 5, "episodes": 4})
    assert [score.setting.readout for score in scores] == ["prototype", "logistic"]
    assert "'adapted' is left out: evaluate.way: must be 3 as in training, since the head 'linear' has a row per class, got 5" in text
    assert [score.setting.readout for score in evaluate_run(other, [], "test", "best", None, {"way": 3, "episodes": 4})[0]] == [
        "prototype",
        "adapted",
        "logistic",
    ]
    with pytest.raises(ConfigError, match=r"evaluate\.way: must be 3 as in training"):
        evaluate_run(other, [], "test", "best", ["adapted"], {"way": 5})
