"""The report: a run that ends below the untrained network says so; one that ends above does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from metaflowkit.evaluation import Score
from metaflowkit.report import Report, _following
from metaflowkit.run import Run
from metaflowkit.values import ImageSet


def score(accuracy: float) -> Score:
    return Score("test", 5, 1, 15, "prototype", 600, accuracy, 0.011)


def report(before: float, after: float, untrained: float | None, best: float) -> Report:
    return Report(
        Path("runs/x"), [score(before)], [score(after)], {"step": 50, "accuracy": best}, untrained, 61.0, "protocol", "mfk evaluate runs/x --way 10 --shot 1"
    )


def test_lines_show_both_scores_the_place_and_the_next_command() -> None:
    lines = report(0.613, 0.754, 0.6, 0.7).lines()
    assert any(line.split() == ["5-way", "1-shot,", "prototype", "61.3", "±", "1.1", "%", "->", "75.4", "±", "1.1", "%"] for line in lines)
    assert lines[-2:] == ["run directory: runs/x", "next: mfk evaluate runs/x --way 10 --shot 1"]
    assert not any("WORSE" in line for line in lines)


@pytest.mark.parametrize(
    ("counts", "command"),
    [
        ({"test": 10, "val": 10}, "mfk evaluate 'runs/a b' --way 10 --shot 1"),
        ({"test": 9, "val": 10}, "mfk evaluate 'runs/a b' --way 2 --shot 1"),
        ({"test": 1, "val": 2}, "mfk evaluate 'runs/a b' --way 2 --shot 1 --split val"),
        ({}, "mfk evaluate 'runs/a b' --set 'dataset={name: folder, root: FOLDER, image_size: 28, mode: color, fractions: {test: 1.0}}'"),
    ],
    ids=str,
)
def test_the_next_command_fits_the_classes_there_are(counts, command) -> None:
    splits = {split: ImageSet(torch.zeros(2 * n, 1, 2, 2), torch.arange(n).repeat(2), tuple(map(str, range(n)))) for split, n in counts.items()}
    flow = SimpleNamespace(splits=splits, shape=(3, 28, 28), pipeline=SimpleNamespace(evaluate=SimpleNamespace(query=1)))
    assert _following(Run(Path("runs/a b")), flow) == command


@pytest.mark.parametrize(("case", "says"), [((0.6, 0.5, 0.4, 0.5), "test 5w1s prototype: 60.0"), ((0.5, 0.6, 0.6, 0.5), "validation: 60.0 % -> 50.0 %")])
def test_worse_than_untrained_is_said_loudly(case, says) -> None:
    found = report(*case)
    text = "\n".join(found.lines())
    assert "WARNING: training made the network WORSE" in text
    assert says in text
    assert "**Training made the network worse:**" in found.markdown()


def test_without_test_or_validation_classes_the_report_says_so() -> None:
    unmeasured = Report(Path("runs/x"), [], [], {"step": 50, "accuracy": float("nan")}, None, 61.0, "protocol", "mfk evaluate runs/x --set ...")
    assert unmeasured.lines() == [
        "test accuracy was not measured, since it needs images in classes and there are no test classes; the next command measures it on a folder that has them",
        "there are no validation classes to choose by, so the weights of step 50, the last, are kept; 61 s in all",
        "run directory: runs/x",
        "next: mfk evaluate runs/x --set ...",
    ]
    assert "test accuracy was not measured" in unmeasured.markdown()
    assert "not measured" not in "\n".join(report(0.5, 0.6, 0.5, 0.6).lines())
