"""The table of the last runs: means over seeds by hand, differences of the same episodes, and nothing where there is nothing to compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaflowkit.evaluation.scores import ACCURACY, paired
from metaflowkit.search.final import ITSELF, final_table

BEST = {0: [0.4, 0.6, 0.5], 1: [0.6, 0.8, 0.7]}
BASELINE = {0: [0.3, 0.5, 0.5], 1: [0.5, 0.9, 0.7]}


def run(folder: Path, name: str, seed: int, each: list[float], dataset: str = "glyphs", **changed: object) -> Path:
    """The run directory of a finished run as far as the table looks at it; it was measured again later, and also on validation classes."""
    path = folder / f"{name}-{seed}"
    path.mkdir()
    (path / "report.md").write_text("")
    (path / "pipeline.yaml").write_text(f"dataset: {dataset}\ntasks: {{name: views}}\nevaluate: {{seed: 0}}\n")
    score = {"split": "test", "way": 5, "shot": 1, "query": 2, "readout": "prototype", "episodes": 3, "ci95": 0.011, **changed}
    lines = [
        {**score, "weights": "untrained", "accuracy": 0.2, "each": [0.1, 0.2, 0.3]},
        {**score, "weights": "best", "accuracy": sum(each) / 3, "each": each},
        {**score, "weights": "best", "accuracy": 0.0, "each": [0.0, 0.0, 0.0]},
        {**score, "split": "val", "shot": 5, "weights": "best", "accuracy": 0.1, "each": each},
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_one_pipeline_has_a_row_for_all_seeds_and_one_for_each(tmp_path) -> None:
    difference = paired([0.1, 0.2, 0.3], BEST[1])
    assert final_table({"trial 3": {seed: run(tmp_path, "best", seed, each) for seed, each in BEST.items()}}, ACCURACY) == [
        "| test accuracy, % (mean and standard deviation, seeds: 2) | of | untrained | trained | difference |",
        "| --- | --- | --- | --- | --- |",
        "| 5-way 1-shot, prototype | trial 3 | 20.0 ± 0.0 | 60.0 ± 14.1 | +40.0 ± 14.1 |",
        "",
        "| test accuracy, % (± 95 % confidence over episodes) | of | seed | untrained | trained | difference |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 5-way 1-shot, prototype | trial 3 | 0 | 20.0 ± 1.1 | 50.0 ± 1.1 | +30.0 ± 11.3 |",
        f"| 5-way 1-shot, prototype | trial 3 | 1 | 20.0 ± 1.1 | 70.0 ± 1.1 | {difference} |",
    ]


def test_the_baseline_stands_beside_it_with_differences_of_the_same_seed_and_episodes(tmp_path) -> None:
    names = {"trial 3": BEST, ITSELF: BASELINE}
    table = final_table({name: {seed: run(tmp_path, name, seed, each) for seed, each in by_seed.items()} for name, by_seed in names.items()}, ACCURACY)
    assert table[0].endswith("| untrained | trained | difference | against the pipeline itself |")
    assert [line.split(" | ")[-1] for line in table[2:4]] == ["+3.3 ± 4.7 |", " |"]
    singles = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table[7:]]
    assert [(row[0], row[1], row[-1]) for row in singles] == [
        ("trial 3", "0", "+6.7 ± 6.5"),
        ("trial 3", "1", "+0.0 ± 11.3, unresolved"),
        (ITSELF, "0", ""),
        (ITSELF, "1", ""),
    ]


@pytest.mark.parametrize("changed", [{"dataset": "digits"}, {"query": 3}], ids=str)
def test_what_was_measured_on_other_episodes_is_not_compared(tmp_path, changed) -> None:
    runs = {"trial 3": {0: run(tmp_path, "best", 0, BEST[0])}, ITSELF: {0: run(tmp_path, "itself", 0, BASELINE[0], **changed)}}
    table = final_table(runs, ACCURACY)
    assert "| 5-way 1-shot, prototype | trial 3 | 20.0 | 50.0 | +30.0 |  |" in table
    assert table[7].endswith("| +30.0 ± 11.3 |  |")


def test_what_is_not_finished_is_left_out(tmp_path) -> None:
    done, cut = (run(tmp_path, "best", seed, BEST[seed]) for seed in (0, 1))
    (cut / "report.md").unlink()
    table = final_table({"trial 3": {0: done, 1: cut}, ITSELF: {0: tmp_path / "nowhere"}}, ACCURACY)
    assert table[2] == "| 5-way 1-shot, prototype | trial 3 | 20.0 | 50.0 | +30.0 |"
    assert "seeds: 1" in table[0]
    assert len(table) == 7
    assert final_table({"trial 3": {1: cut}}, ACCURACY) == final_table({}, ACCURACY) == []
