"""The report: what it says of a change is what the paired difference of the same episodes bears out, and the command it names works."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.config.metric import Metric
from metaflowkit.config.pipeline import pipeline_of, read
from metaflowkit.evaluation.scores import ACCURACY, AdaptationSetting, Difference, FewShot, Score, paired
from metaflowkit.reporting.report import Report, following
from metaflowkit.reporting.train import train
from metaflowkit.rules import SGD
from metaflowkit.training.run_directory import Run
from metaflowkit.types import ImageSet
from tests.conftest import png
from tests.small import SMALL

HARD = np.random.default_rng(0).normal(0, 0.08, 600)  # how hard each episode is, which both networks feel


def score(accuracy: float, noise: float = 0.0, seed: int = 1) -> Score:
    each = accuracy + HARD - HARD.mean() + noise * _centred(seed)
    return Score("test", FewShot(5, 1, 15, "prototype"), ACCURACY, 600, accuracy, 1.96 * float(each.std(ddof=1)) / math.sqrt(600), tuple(each))


def _centred(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=600)
    return drawn - drawn.mean()


def report(before: Score, after: Score, validation: Difference | None = None, best: float = 0.7) -> Report:
    return Report(
        Path("runs/x"),
        [before],
        [after],
        {"step": 50, "value": best},
        None if math.isnan(best) else 0.6,
        61.0,
        "protocol",
        "mfk evaluate runs/x --way 10 --shot 1",
        validation,
    )


def test_the_paired_difference_is_that_of_numpy_and_cancels_how_hard_an_episode_is() -> None:
    before, after = score(0.6, 0.02, 1), score(0.61, 0.02, 2)
    each = np.array(after.each) - np.array(before.each)
    difference = paired(before.each, after.each)
    assert difference.mean == pytest.approx(each.mean())
    assert difference.ci95 == pytest.approx(1.96 * each.std(ddof=1) / math.sqrt(600))
    assert difference.resolved
    assert difference.ci95 < before.ci95 / 2
    assert str(Difference(0.15, 0.011)) == "+15.0 ± 1.1"
    assert str(Difference(-0.013, 0.02)) == "-1.3 ± 2.0"
    assert not Difference(-0.013, 0.02).resolved


@pytest.mark.parametrize(("before", "after"), [((), (0.1, 0.2)), ((0.1, 0.2), ()), ((), ()), ((0.1, 0.2, 0.3), (0.1, 0.2)), ((0.1,), (0.2,))])
def test_there_is_no_difference_without_the_same_episodes(before, after) -> None:
    assert paired(before, after) is None


def test_lines_show_both_scores_the_difference_the_place_and_the_next_command() -> None:
    result = report(score(0.613), score(0.754, 0.14), Difference(0.1, 0.02))
    lines = result.lines()
    row = ["5-way", "1-shot,", "prototype", "61.3", "±", "0.6", "%", "->", "75.4", "±", "1.2", "%", "+14.1", "±", "1.1"]
    assert any(line.split() == row for line in lines)
    assert "best validation accuracy at step 50, +10.0 ± 2.0 against the untrained network; 61 s in all" in lines
    assert any("difference: trained minus untrained, episode by episode; protocol)" in line for line in lines)
    assert lines[-2:] == ["run directory: runs/x", "next: mfk evaluate runs/x --way 10 --shot 1"]
    assert not any("WORSE" in line or "unresolved" in line for line in lines)
    assert "| test accuracy | untrained | trained | difference |\n|---|---|---|---|\n" in result.markdown()
    assert "| 5-way 1-shot, prototype | 61.3 ± 0.6 % | 75.4 ± 1.2 % | +14.1 ± 1.1 |" in result.markdown()


def test_a_fall_that_the_episodes_do_not_resolve_is_unresolved_and_not_worse() -> None:
    result = report(score(0.845, 0.3, 1), score(0.832, 0.3, 2), Difference(-0.01, 0.02), best=0.59)
    text = "\n".join(result.lines())
    assert result.worse() == []
    assert "WORSE" not in text
    assert "worse" not in result.markdown()
    assert "-1.3 ± 3.3, unresolved\n" in text
    assert "unresolved where its interval contains 0" in text
    assert "| -1.3 ± 3.3, unresolved |" in result.markdown()
    assert "best validation accuracy at step 50, -1.0 ± 2.0, unresolved against the untrained network" in text


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (report(score(0.6), score(0.59, 0.05)), "test 5w1s prototype: 60.0 ± 0.6 % -> 59.0 ± 0.7 %, -1.0 ± 0.4"),
        (report(score(0.5), score(0.6), Difference(-0.1, 0.03), best=0.5), "validation: 60.0 % -> 50.0 %, -10.0 ± 3.0"),
    ],
    ids=["test", "validation"],
)
def test_worse_than_untrained_is_said_loudly_where_it_is_resolved(result, says) -> None:
    text = "\n".join(result.lines())
    assert "WARNING: training made the network WORSE than it was before the first step:\n  " + says in text
    assert f"**Training made the network worse:**\n\n- {says}" in result.markdown()
    for written in (text, result.markdown()):
        assert "another objective (mfk compare PIPELINE --vary objective=query_loss)" in written


def test_before_its_first_step_an_initialisation_may_be_worse() -> None:
    def adapted(value: float, steps: int) -> Score:
        return Score.of("test", AdaptationSetting(10, steps), Metric("return", True, False), torch.tensor([value - 1, value, value + 1], dtype=torch.float64))

    assert report(adapted(20.0, 0), adapted(10.0, 0)).worse() == []
    assert report(adapted(20.0, 1), adapted(10.0, 1)).worse() == ["test 10-shot, 1 step: 20.0 ± 1.1 -> 10.0 ± 1.1, -10.0 ± 0.0"]


def test_a_run_that_never_validated_does_not_speak_of_validation(write, tmp_path) -> None:
    result = train(read(write(SMALL), ["dataset.val_fraction=0.0", "outer.steps=2"]), tmp_path / "run")
    text = "\n".join(result.lines())
    assert "no validation classes, so the weights of the last step, 2, were kept; " in text
    assert "best validation" not in text + result.markdown()
    assert "![training objective](curve.png)" in result.markdown()
    assert (result.untrained, result.validation) == (None, None)


def test_the_differences_of_a_run_are_those_of_its_episodes_also_after_a_resume(write, tmp_path) -> None:
    pipeline = read(write(SMALL), ["evaluate.val_episodes=20", "evaluate.episodes=20"])
    result = train(pipeline, tmp_path / "run")
    assert result.validation is not None
    assert result.validation.mean == pytest.approx(result.best["value"] - result.untrained)
    assert result.validation.ci95 > 0
    for before, after, difference in zip(result.before, result.after, result.differences(), strict=True):
        assert difference.mean == pytest.approx(after.value - before.value)
    (tmp_path / "run" / "checkpoints" / "step-0000004.pt").unlink()  # goes on from step 2, in a process that has not seen step 0
    again = train(pipeline, tmp_path / "run", resume=True)
    assert again.validation == result.validation
    assert again.differences() == result.differences()


@pytest.mark.parametrize(
    ("counts", "command"),
    [
        ({"test": 10, "val": 10}, "mfk evaluate 'runs/a b' --way 10 --shot 1"),
        ({"test": 9, "val": 10}, "mfk evaluate 'runs/a b' --way 2 --shot 1"),
        ({"test": 1, "val": 2}, "mfk evaluate 'runs/a b' --way 2 --shot 1 --split val"),
        ({}, "mfk evaluate 'runs/a b' --way 5 --shot 1 --set 'dataset={name: digits, image_size: 8}'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("shown", [[(5, 1)], [(10, 1), (2, 1)]], ids=str)
def test_the_next_command_fits_the_classes_there_are_and_measures_something_new(counts, command, shown) -> None:
    splits = {split: ImageSet(torch.zeros(2 * n, 1, 2, 2), torch.arange(n).repeat(2), tuple(map(str, range(n)))) for split, n in counts.items()}
    evaluate = SimpleNamespace(query=1, settings=lambda: shown)
    interface = SimpleNamespace(shape=(1, 8, 8))
    flow = SimpleNamespace(splits=splits, interface=interface, measured=False, pipeline=SimpleNamespace(evaluate=evaluate, seed=3, from_python=False))
    if shown != [(5, 1)] and "--split" not in command and counts:
        command = "mfk evaluate 'runs/a b' --way 10 --shot 1 --split val"
    assert following(Run(Path("runs/a b")), flow) == command


@pytest.mark.parametrize(("measured", "call"), [(False, "evaluate"), (True, "evaluate_adaptation")])
def test_of_objects_from_python_a_call_is_named_and_no_command(measured, call) -> None:
    pipeline = pipeline_of({"dataset": "glyphs", "inner": {"rule": SGD(lr=0.1)}})
    assert pipeline.from_python
    assert not pipeline_of({"dataset": "glyphs"}).from_python
    flow = SimpleNamespace(measured=measured, pipeline=pipeline)
    assert following(Run(Path("runs/a b")), flow) == f"metaflowkit.{call}(metaflowkit.load('runs/a b')) in Python, where the pipeline was made"


def folder_of(path: Path, channels: int) -> None:
    """Ten classes of six noisy 16x16 images."""
    drawn = np.random.default_rng(0)
    for c in range(10):
        (path / f"class{c}").mkdir(parents=True)
        tile = drawn.integers(0, 256, (16, 16, channels)).squeeze()
        for i in range(6):
            (path / f"class{c}" / f"{i}.png").write_bytes(png((tile ^ drawn.integers(0, 64, tile.shape)).astype(np.uint8)))


@pytest.mark.parametrize(
    ("channels", "overrides", "command"),
    [
        (1, [], "evaluate RUN --way 2 --shot 1"),
        (1, ["dataset.fractions={train: 0.4, val: 0.2, test: 0.4}", "evaluate.way=2"], "evaluate RUN --way 2 --shot 1 --split val"),
        (1, ["dataset.fractions={train: 0.5, val: 0.5}"], "evaluate RUN --way 2 --shot 1 --split val"),
        (1, ["dataset.fractions={train: 1.0}"], "evaluate RUN --way 5 --shot 1 --set 'dataset={name: digits, image_size: 16}'"),
        (3, ["dataset.fractions={train: 1.0}", "dataset.mode=color"], "run RUN/pipeline.yaml --set seed=1"),
        (1, ["model.head=linear", "inner.loss=cross_entropy", "evaluate.readouts=[prototype, adapted]"], "evaluate RUN --way 2 --shot 1"),
        (1, ["dataset.fractions={train: 1.0}", "model.head=linear", "inner.loss=cross_entropy"],
         "evaluate RUN --way 5 --shot 1 --set 'dataset={name: digits, image_size: 16}'"),
    ],
    ids=["glyph-like", "two-way shown", "validation alone", "grey, no test classes", "color, no test classes", "fixed way", "fixed way, no test classes"],
)  # fmt: skip
def test_the_next_command_works(channels, overrides, command, write, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "shapes", channels)
    text = SMALL.replace("name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic", "name: folder, root: shapes, mode: grey, image_size: 16")
    fractions = [] if any("fractions" in override for override in overrides) else ["dataset.fractions={train: 0.4, val: 0.3, test: 0.3}"]
    result = train(read(write(text), [*fractions, "outer.steps=1", *overrides]), tmp_path / "run")
    assert result.following == "mfk " + command.replace("RUN", str(tmp_path / "run"))
    done = CliRunner().invoke(main, shlex.split(result.following)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if command.startswith("evaluate"):
        last = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
        assert last["accuracy"] > 0
