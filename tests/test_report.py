"""The report: a run that ends below the untrained network says so; one that ends above does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaflowkit.evaluation import Score
from metaflowkit.report import Report


def score(accuracy: float) -> Score:
    return Score("test", 5, 1, 15, "prototype", 600, accuracy, 0.011)


def report(before: float, after: float, untrained: float | None, best: float) -> Report:
    return Report(Path("runs/x"), [score(before)], [score(after)], {"step": 50, "accuracy": best}, untrained, 61.0, "protocol")


def test_lines_show_both_scores_the_place_and_the_next_command() -> None:
    lines = report(0.613, 0.754, 0.6, 0.7).lines()
    assert any(line.split() == ["5-way", "1-shot,", "prototype", "61.3", "±", "1.1", "%", "->", "75.4", "±", "1.1", "%"] for line in lines)
    assert lines[-2:] == ["run directory: runs/x", "next: mfk evaluate runs/x --way 10 --shot 1"]
    assert not any("WORSE" in line for line in lines)


@pytest.mark.parametrize(("case", "says"), [((0.6, 0.5, 0.4, 0.5), "test 5w1s prototype: 60.0"), ((0.5, 0.6, 0.6, 0.5), "validation: 60.0 % -> 50.0 %")])
def test_worse_than_untrained_is_said_loudly(case, says) -> None:
    found = report(*case)
    text = "\n".join(found.lines())
    assert "WARNING: training made the network WORSE" in text
    assert says in text
    assert "**Training made the network worse:**" in found.markdown()
