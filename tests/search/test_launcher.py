"""mfk search as a user starts it: to its end, stopped, killed, joined."""

from __future__ import annotations

import contextlib
import csv
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from metaflowkit.cli import main
from metaflowkit.config.pipeline import read
from metaflowkit.search.launcher import Workers, exclusive
from metaflowkit.search.report import conclude
from metaflowkit.search.specification import read_search
from metaflowkit.search.study import enter, join
from metaflowkit.search.trial_queue import ENDED, REQUEUED
from tests.search.small import SPACE, search_file

LONG = "set: {outer.steps: 60, evaluate.every: 20}"
FINAL = "final: {seeds: [1], set: {outer.steps: 2}}"


def start(*arguments, folder) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "metaflowkit", "search", *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def searched(*arguments, folder: Path, code: int = 0) -> str:
    """All that mfk search prints in this process, whose workers are processes of their own."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(main, ["search", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def finished(process: subprocess.Popen, code: int = 0) -> str:
    """All that a command printed; it must have ended with this code."""
    text, _ = process.communicate(timeout=180)
    assert process.returncode == code, text
    return text


def until(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def _running(folder):
    if not (folder / "study.json").is_file():
        return None
    return [t for t in join(str(folder)).queue.trials(TrialState.RUNNING) if (folder / "trials" / f"{t.number:04d}" / "checkpoints").is_dir()]


@pytest.mark.slow
def test_a_search_from_start_to_report(tmp_path) -> None:
    text = searched(search_file(tmp_path, SPACE, "trials: 3\nworkers: 2\nfinal: {seeds: []}"), folder=tmp_path)
    assert text.startswith("study directory studies/s: 3 trials, 2 workers")
    assert len(re.findall(r"^trial \d: [\d.]+ %  inner.rule.lr=[\d.]+ objective.delta=\d  \d+ s \(\d of 3; best ", text, re.MULTILINE)) == 3
    folder = tmp_path / "studies" / "s"
    assert (folder / "report.html").read_text().count("data:image/png") >= 3  # importances need accuracies that differ
    assert [row["state"] for row in csv.DictReader((folder / "trials.csv").read_text().splitlines())] == ["complete"] * 3
    assert read(folder / "best.yaml").outer.steps == 4
    assert "study s: 3 complete of 3 trials" in searched("show", folder, folder=tmp_path)
    printed, rows = json.loads(searched("show", folder, "--json", folder=tmp_path)), list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert (printed["states"], printed["trials"]) == ({"complete": 3}, 3)
    best = printed["best"][0]
    assert float(rows[best["trial"]]["val/accuracy"]) == best["values"]["val/accuracy"] == max(float(row["val/accuracy"]) for row in rows)
    assert {name: str(value) for name, value in best["parameters"].items()} == {name: rows[best["trial"]][name] for name in best["parameters"]}
    assert {name for group in printed["importances"] for name in group["parameters"]} <= set(best["parameters"])


@pytest.mark.slow
def test_a_search_from_start_to_test_accuracy(tmp_path) -> None:
    text = searched(search_file(tmp_path, SPACE, f"trials: 3\nworkers: 2\n{FINAL}"), folder=tmp_path)
    assert re.search(r"^training trial \d with seeds 1, and evaluating on test classes", text, re.MULTILINE)
    row = re.search(r"\| 3-way 1-shot, prototype \| trial \d \| [\d.]+ \| [\d.]+ \| [+-][\d.]+ \|", text)[0]
    by_seed = re.findall(r"\| 3-way 1-shot, prototype \| trial \d \| ([01]) \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \| [+-][\d.]+ ± [\d.]+", text)
    assert by_seed == ["1"]
    folder = tmp_path / "studies" / "s"
    assert row in (folder / "report.html").read_text()
    assert len(list((folder / "final").iterdir())) == 1
    assert row in searched("show", folder, folder=tmp_path)
    again = searched("s.yaml", folder=tmp_path)
    assert "| 3-way 1-shot, prototype |" in again
    assert "training trial" not in again  # nothing is trained once more


def test_the_pipeline_itself_may_be_trained_like_the_best_one(tmp_path, monkeypatch) -> None:
    def ran(workers, name: str, arguments) -> None:
        run = Path(arguments[arguments.index("--run-dir") + 1])
        run.mkdir(parents=True)
        pipeline = read(arguments[1])
        (run / "pipeline.yaml").write_text(pipeline.to_yaml())
        score = {"split": "test", "way": 5, "shot": 1, "query": 2, "readout": "prototype", "episodes": 2, "ci95": 0.01}
        accuracies = {"untrained": 0.1, "best": pipeline.objective.settings["delta"] / 10}
        lines = [{**score, "weights": weights, "accuracy": a, "each": [a - 0.05, a + 0.05]} for weights, a in accuracies.items()]
        (run / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "report.md").write_text("")

    monkeypatch.setattr(Workers, "_start", ran)
    space = read_search(search_file(tmp_path, "objective.delta: {low: 1, high: 6}", "trials: 2\nfinal: {seeds: [0, 1], baseline: true}"))
    study = enter(space, tmp_path / "study", None)
    found = study.queue.open()
    for delta, accuracy in ((space.baseline["objective.delta"], 0.3), (6, 0.4)):
        found.add_trial(optuna.trial.create_trial(value=accuracy, params={"objective.delta": delta}, distributions={"objective.delta": IntDistribution(1, 6)}))
    before = conclude(study)
    assert not any("accuracy, %" in line for line in before)  # nothing is said of what has not been trained
    said: list[str] = []
    table = Workers(study, said.append).finish()
    assert table[2:4] == [
        "| 5-way 1-shot, prototype | trial 3 | 10.0 ± 0.0 | 60.0 ± 0.0 | +50.0 ± 0.0 | +10.0 ± 0.0 |",
        "| 5-way 1-shot, prototype | the pipeline itself | 10.0 ± 0.0 | 50.0 ± 0.0 | +40.0 ± 0.0 |  |",
    ]
    shown = conclude(study)
    assert [line for line in shown if line.startswith("|")] == [line for line in table if line]
    assert html.escape(table[2]) in (study.folder / "report.html").read_text()
    assert (study.folder / "test.md").read_text().splitlines() == table
    assert said == ["training trial 3 and the pipeline itself with seeds 0, 1, and evaluating on test classes"]


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path) -> None:
    path = search_file(tmp_path, SPACE, f"trials: 1\n{LONG}\nfinal: {{seeds: []}}")
    folder = tmp_path / "studies" / "s"
    process = start(path, folder=tmp_path)
    until(lambda: _running(folder))
    process.send_signal(signal.SIGINT)
    text = finished(process, 130)
    assert "stopping: running trials are being saved" in text
    assert "studies/s: stopped by SIGINT, 1 of 1 trials are left and nothing is lost; go on with the same command" in text
    first, second = join(str(folder)).queue.trials()
    assert (first.user_attrs[ENDED], second.state) == ("stopped and saved", TrialState.WAITING)
    process = start(path, folder=tmp_path)
    text = finished(process)
    assert [t.state for t in join(str(folder)).queue.trials()] == [TrialState.FAIL, TrialState.COMPLETE]
    assert [p.name for p in (folder / "trials").iterdir()] == ["0001"]


@pytest.mark.slow
def test_a_worker_killed_in_mid_trial_loses_only_that_trial(tmp_path) -> None:
    path = search_file(tmp_path, SPACE, f"trials: 2\n{LONG}\nlease: 5\nfinal: {{seeds: []}}")
    folder = tmp_path / "studies" / "s"
    process = start(path, folder=tmp_path)
    (victim,) = until(lambda: _running(folder))
    os.kill(until(lambda: join(str(folder)).queue.trial(victim.number).user_attrs.get("lease"))["pid"], signal.SIGKILL)
    text = finished(process)
    assert re.search(rf"trial {victim.number}: its worker \S+ stopped answering", text)
    trials = join(str(folder)).queue.trials()
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 2
    assert [t.number for t in trials if REQUEUED in t.user_attrs] == [victim.number]
    again = next(t for t in trials if t.user_attrs.get("goes on") == victim.number)
    assert again.params == victim.params


@pytest.mark.slow
def test_a_worker_that_joins_shares_the_trials(tmp_path) -> None:
    path = search_file(tmp_path, SPACE, f"trials: 4\n{LONG}\nfinal: {{seeds: []}}")
    folder = tmp_path / "studies" / "s"
    process = start(path, folder=tmp_path)
    until(lambda: _running(folder))
    joined = start("--worker", folder, folder=tmp_path)
    for each in (process, joined):
        finished(each)
    trials = join(str(folder)).queue.trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert len({t.user_attrs["lease"]["pid"] for t in trials}) == 2


@pytest.mark.slow
def test_a_time_limit_saves_what_is_at_hand(tmp_path) -> None:
    process = start(search_file(tmp_path, SPACE, f"trials: 1\n{LONG}\ntime_limit: 0.1"), folder=tmp_path)
    text = finished(process, 130)
    assert "stopped by the time limit of 0.1 seconds, 1 of 1 trials are left and nothing is lost" in text


def test_what_stops_every_trial_is_said_once_and_where_to_read_more(tmp_path) -> None:
    text = searched(search_file(tmp_path, SPACE, "trials: 2\nset: {dataset.val_fraction: 0.0}"), folder=tmp_path, code=1)
    assert "mfk: worker-0: dataset: has no validation classes" in text
    assert "all it printed is in studies/s/logs/worker-0.log" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(tmp_path) -> None:
    folder = tmp_path / "studies" / "s"
    process = start(search_file(tmp_path, SPACE, f"trials: 1\n{LONG.replace('60', '4000')}"), folder=tmp_path)
    (trial,) = until(lambda: _running(folder))
    pid = until(lambda: join(str(folder)).queue.trial(trial.number).user_attrs.get("lease"))["pid"]
    process.kill()
    process.communicate()
    until(lambda: not os.path.exists(f"/proc/{pid}"), 30)
    assert join(str(folder)).queue.trial(0).user_attrs[ENDED] == "stopped and saved"


def test_two_commands_on_one_folder(tmp_path) -> None:
    path = search_file(tmp_path)
    with exclusive(tmp_path / "studies" / "s"):
        text = searched(path, folder=tmp_path, code=1)
    assert "studies/s: another mfk search is at work here; join it with mfk search --worker studies/s" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["search", "--trials", "3"], "mfk search: needs a search file, or --worker and a study; give one of them"),
        (["search", "--worker", "x", "--trials", "3"], "--worker: a worker does what its study says"),
        (["search", "--worker", "nowhere"], "nowhere: is no folder of a study"),
        (["search", "show", "nowhere"], "nowhere: is no folder of a study"),
    ],
)
def test_mistakes_on_the_command_line(arguments, says) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_help() -> None:
    assert "show" in CliRunner().invoke(main, ["search", "--help"]).output
    assert "--worker STUDY" in CliRunner().invoke(main, ["search", "start", "--help"]).output
