"""Trials as they really run: complete, pruned, diverged, impossible, out of memory, stopped, over their limits."""

from __future__ import annotations

import os
import signal
import threading
from statistics import median
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.trial import TrialState

from metaflowkit.config import registry
from metaflowkit.errors import ConfigError, DataError, Interrupted, RunError
from metaflowkit.evaluation import measurement
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score
from metaflowkit.search import report as page
from metaflowkit.search import results
from metaflowkit.search import trial as trials
from metaflowkit.search.distributions import suggest
from metaflowkit.search.report import write_page
from metaflowkit.search.results import best_trials, importances, pipeline_of, summary, write_results
from metaflowkit.search.specification import read_search
from metaflowkit.search.study import enter
from metaflowkit.search.trial_queue import ENDED, GOES_ON, REQUEUED
from metaflowkit.search.worker import work
from metaflowkit.training.events import Finished, Started, Validated
from metaflowkit.training.metric_log import MetricLog
from metaflowkit.training.outer_loop import OuterLoop
from tests.search.small import SPACE, search_file


@pytest.fixture
def entered(tmp_path):
    def enter_search(space: str = SPACE, more: str = "trials: 2", location=None):
        return enter(read_search(search_file(tmp_path, space, more)), tmp_path / "study", location)

    return enter_search


def _work(study, lines=None) -> None:
    work(study.search, study.queue, study.folder, 0, (lines if lines is not None else []).append)


def test_trials_are_runs_that_report_validation_and_never_see_test_classes(entered, monkeypatch) -> None:
    seen = []
    evaluate = measurement.evaluate
    monkeypatch.setattr(measurement, "evaluate", lambda flow, split, *rest: seen.append((split, set(flow.splits))) or evaluate(flow, split, *rest))
    study = entered()
    _work(study)
    first, second = study.queue.trials()
    assert {split for split, _ in seen} == {"val"}
    assert not any("test" in splits for _, splits in seen)
    assert first.state == second.state == TrialState.COMPLETE
    assert first.params == study.search.baseline
    for trial in (first, second):
        run = study.folder / "trials" / f"{trial.number:04d}"
        journal = {line["step"]: line["val/accuracy"] for line in MetricLog(run / "metrics.jsonl").read() if "val/accuracy" in line}
        assert trial.intermediate_values == {step: value for step, value in journal.items() if step}
        assert trial.values == [max(value for step, value in journal.items() if step)]
        assert (run / "checkpoints" / "best.pt").is_file()
        assert trial.user_attrs["seconds"] > 0
        assert trial.user_attrs["memory"] >= 0
    assert best_trials(study)[0].value == max(t.value for t in (first, second))
    assert pipeline_of(study, first).plain() == study.search.pipeline.plain()
    assert set(write_results(study)) == {"trials.csv", "best.yaml"}
    assert any(line.startswith("study s: 2 complete of 2 trials") for line in summary(study))


@pytest.mark.slow
def test_plots_take_more_accuracy_for_better(entered, monkeypatch) -> None:
    import optuna.visualization.matplotlib as plots

    shown = {}

    def watched(name: str, draw):
        return lambda *args, **more: shown.setdefault(name, more) and draw(*args, **more)

    for name in ("plot_contour", "plot_parallel_coordinate", "plot_optimization_history"):
        monkeypatch.setattr(plots, name, watched(name, getattr(plots, name)))
    study = entered(more="trials: 3\npruner: none")
    _work(study)
    write_page(study, [])
    assert set(shown) == {"plot_contour", "plot_parallel_coordinate", "plot_optimization_history"}
    assert all("target" not in more and more["target_name"] == "val/accuracy" for more in shown.values())


def test_settings_of_a_choice_are_weighed_among_the_trials_that_have_them(entered, monkeypatch) -> None:
    rule = "inner.rule: {choices: [{value: sgd, space: {lr: {low: 0.1, high: 1.0}, momentum: {low: 0.0, high: 0.9}}}, adam]}"
    study = entered(f"{rule}\n  objective.delta: {{low: 1, high: 6}}", "trials: 1")
    found = study.queue.open(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        trial = found.ask()
        suggest(trial, study.search.axes)
        found.tell(trial, trial.params.get("inner.rule.lr (sgd)", 0.5))
    have = sum("inner.rule.lr (sgd)" in trial.params for trial in study.queue.trials(TrialState.COMPLETE))
    for module in (results, page):
        monkeypatch.setattr(module, "fanova", lambda: optuna.importance.FanovaImportanceEvaluator(n_trees=8, seed=0))
    (everywhere, of_all), (of_sgd, count) = importances(study)
    assert (set(everywhere), of_all) == ({"inner.rule", "objective.delta"}, 60)
    assert (set(of_sgd), count) == ({"inner.rule.lr (sgd)", "inner.rule.momentum (sgd)"}, have)
    assert of_sgd["inner.rule.lr (sgd)"] > 0.8
    assert importances(study) == [(everywhere, of_all), (of_sgd, count)]  # not others at another look
    assert f"importance for val/accuracy in {have} complete trials" in "\n".join(summary(study))
    write_page(study, [])
    text = (study.folder / "report.html").read_text()
    assert "<h2>Contour of inner.rule.lr (sgd) and inner.rule.momentum (sgd)</h2>" in text


def test_the_study_may_prune(entered, monkeypatch) -> None:
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: trial.number == 1)
    study = entered()
    _work(study)
    trial = study.queue.trials()[1]
    assert (trial.state, trial.user_attrs[ENDED], list(trial.intermediate_values)) == (TrialState.PRUNED, "pruned at outer step 2", [2])


def test_the_last_step_is_not_pruned_any_more(entered, monkeypatch) -> None:
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: trial.last_step == 4)
    study = entered(more="trials: 1")
    _work(study)
    assert study.queue.trials()[0].state == TrialState.COMPLETE


def test_wilcoxon_compares_groups_of_the_same_episodes(entered) -> None:
    study = entered(more="trials: 1\npruner: wilcoxon")
    _work(study)
    (trial,) = study.queue.trials()
    assert list(trial.intermediate_values) == [2000, 2001, 2002, 2003, 4000, 4001, 4002, 4003]
    run = study.folder / "trials" / "0000"
    final = [line["val/accuracy"] for line in MetricLog(run / "metrics.jsonl").read() if "val/accuracy" in line][-1]
    assert sum(list(trial.intermediate_values.values())[4:]) / 4 == pytest.approx(final)


def test_every_trial_diverging_ends_with_a_plain_word(entered, monkeypatch) -> None:
    step = OuterLoop.advance

    def poisoned(self) -> None:
        with torch.no_grad():
            next(iter(self.parameters.values())).fill_(float("nan"))
        step(self)

    monkeypatch.setattr(OuterLoop, "advance", poisoned)
    study = entered()
    _work(study)
    for trial in study.queue.trials():
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs[ENDED].startswith("diverged: outer step 1: the meta-gradient is not finite")
    text = "\n".join(summary(study))
    assert "2 diverged" in text
    assert "no trial is complete and within the limits, so there is no best one" in text
    assert write_results(study) == ["trials.csv"]


def test_values_that_do_not_go_together_are_recorded_as_such(entered) -> None:
    study = entered(
        "inner.steps: [1, 2]\n  inner.order: [exact, {name: truncate, last: 1}, {value: {name: truncate, last: 2}, label: both}]",
        "trials: 3\nset: {inner.steps: 2}",
    )
    impossible = {"inner.steps": 1, "inner.order": "both"}
    study.queue.open().enqueue_trial(impossible)
    _work(study)
    trial = study.queue.trials()[3]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[ENDED].startswith("no possible pipeline: ")
    assert "inner.order.last: must be at most inner.steps, 1, got 2" in trial.user_attrs[ENDED]


def test_what_only_building_can_find_is_recorded_as_such(entered) -> None:
    study = entered("dataset.image_size: [28, 8]", "trials: 1")
    study.queue.open().enqueue_trial({"dataset.image_size": 8})
    _work(study)
    trial = study.queue.trials()[1]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[ENDED].startswith("cannot be built: ")
    assert "conv4 needs images of at least 16x16 pixels, got 8x8" in trial.user_attrs[ENDED]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), torch.OutOfMemoryError("CUDA")]
)
def test_out_of_memory_is_the_trials_fault(entered, monkeypatch, error) -> None:
    monkeypatch.setattr(trials, "events", lambda *args, **more: (_ for _ in ()).throw(error))
    study = entered(more="trials: 1")
    _work(study)
    (trial,) = study.queue.trials()
    assert (trial.state, trial.user_attrs[ENDED].split(":")[0]) == (TrialState.PRUNED, "out of memory")


@pytest.mark.parametrize("error", [RunError("disk: full"), ValueError("a bug")])
def test_what_is_not_the_trials_fault_stops_the_worker_and_puts_the_trial_again(entered, monkeypatch, error) -> None:
    monkeypatch.setattr(trials, "events", lambda *args, **more: (_ for _ in ()).throw(error))
    study = entered(more="trials: 1\nretries: 1")
    for _ in range(2):
        with pytest.raises(type(error)):
            _work(study)
    assert [t.state for t in study.queue.trials()] == [TrialState.FAIL] * 2
    assert REQUEUED not in study.queue.trials()[1].user_attrs
    _work(study)  # nothing is left


def test_limits_make_a_trial_infeasible(entered) -> None:
    study = entered(more="trials: 2\nlimits: {memory: 0.000001}")
    _work(study)
    first, second = study.queue.trials()
    assert first.state == TrialState.COMPLETE
    assert best_trials(study) == []
    assert any(t.user_attrs["memory"] > 0 for t in (first, second))


def test_a_trial_over_its_time_is_ended(entered) -> None:
    study = entered(more="trials: 1\nlimits: {seconds: 0.001}")
    _work(study)
    (trial,) = study.queue.trials()
    assert (trial.state, trial.user_attrs[ENDED]) == (TrialState.PRUNED, "over its 0.001 seconds at outer step 2")


def test_a_stopped_trial_goes_on_in_its_own_run_to_the_same_end(entered, tmp_path, monkeypatch) -> None:
    whole = entered(more="trials: 1")
    _work(whole)
    step = OuterLoop.advance

    def stopped(self) -> None:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(OuterLoop, "advance", stopped)
    (tmp_path / "cut").mkdir()
    cut = enter(read_search(search_file(tmp_path / "cut", SPACE, "trials: 1")), tmp_path / "cut" / "study", None)
    with pytest.raises(Interrupted, match=r"^trial 0: stopped and saved; go on with the same command$"):
        _work(cut)
    monkeypatch.undo()
    _work(cut)
    stopped_trial, done = cut.queue.trials()
    (reference,) = whole.queue.trials()
    assert (stopped_trial.state, stopped_trial.user_attrs[ENDED]) == (TrialState.FAIL, "stopped and saved")
    assert done.user_attrs[GOES_ON] == 0
    assert done.user_attrs["seconds"] > stopped_trial.user_attrs["seconds"] > 0  # both learner of the run
    assert (done.values, done.intermediate_values) == (reference.values, reference.intermediate_values)
    assert not (cut.folder / "trials" / "0000").exists()
    assert len(MetricLog(cut.folder / "trials" / "0001" / "metrics.jsonl").read()) == len(MetricLog(whole.folder / "trials" / "0000" / "metrics.jsonl").read())


def test_a_trial_that_was_taken_away_is_let_go(entered, monkeypatch) -> None:
    study = entered(more="trials: 1")
    step = OuterLoop.advance
    calls = []

    def taken(self) -> None:
        if self.step == 1 and not calls:
            calls.append(1)
            study.queue.give_back(0, "for the test", counted=True)
        step(self)

    monkeypatch.setattr(OuterLoop, "advance", taken)
    lines = []
    _work(study, lines)
    assert lines[0] == "trial 0: taken away, since this worker did not answer in time"
    assert [t.state for t in study.queue.trials()] == [TrialState.FAIL, TrialState.COMPLETE]


def test_several_metrics_end_in_a_front(entered) -> None:
    study = entered(more="trials: 3\npruner: none\nsampler: {name: nsga2, population_size: 2}\nmetrics: {val/accuracy: maximize, seconds: minimize}")
    _work(study)
    assert all(len(t.values) == 2 for t in study.queue.trials())
    front = best_trials(study)
    assert front
    assert all(not (a.values[0] >= b.values[0] and a.values[1] < b.values[1]) for a in study.queue.trials() for b in front)


def test_without_validation_classes_there_is_nothing_to_choose_by(entered) -> None:
    study = entered(more="trials: 1\nset: {dataset.val_fraction: 0.0}")
    with pytest.raises(DataError, match=r"dataset: has no validation classes, and a search chooses by them"):
        _work(study)


BOWL = "inner.rule.lr: {low: 0.1, high: 0.9}\n  objective.temperature: {low: 0.1, high: 0.9}"


def _loss(pipeline) -> float:
    """Least, 0, at the rate 0.2 and the temperature 0.8."""
    return (pipeline.inner.rule.settings["lr"] - 0.2) ** 2 + (pipeline.objective.settings["temperature"] - 0.8) ** 2


def _bowl_of(entered, monkeypatch, sampler: str, trials_: int) -> list[optuna.trial.FrozenTrial]:
    """The trials of a search whose accuracy is known, without training."""
    monkeypatch.setattr(trials, "events", lambda pipeline, *args, **more: _ended(1 - _loss(pipeline)))
    study = entered(BOWL, f"trials: {trials_}\nsampler: {sampler}\npruner: none\nset: {{objective: {{name: bootstrapped_kl, temperature: 0.5}}}}")
    _work(study)
    done = study.queue.trials()
    assert len(done) == trials_
    assert all(t.state == TrialState.COMPLETE for t in done)
    assert done[0].params["inner.rule.lr"] == study.search.baseline["inner.rule.lr"]
    return done


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        ("tpe", "TPESampler"),
        ("{name: tpe, n_startup_trials: 5, multivariate: true}", "TPESampler"),
        ("{name: gp, n_startup_trials: 5}", "GPSampler"),
        ("cmaes", "CmaEsSampler"),
        ("{name: nsga2, population_size: 5}", "NSGAIISampler"),
        ("qmc", "QMCSampler"),
        ("random", "RandomSampler"),
    ],
)
def test_a_sampler_is_the_one_of_its_name(entered, sampler, kind, monkeypatch) -> None:
    used = []
    build = type(registry.SAMPLERS).build
    monkeypatch.setattr(type(registry.SAMPLERS), "build", lambda self, choice, **given: used.append(build(self, choice, **given)) or used[-1])
    _bowl_of(entered, monkeypatch, sampler, 2)
    assert [type(component).__name__ for component in used if isinstance(component, optuna.samplers.BaseSampler)] == [kind]


@pytest.mark.parametrize(
    ("sampler", "trials_"),
    [
        ("tpe", 40),
        ("{name: tpe, n_startup_trials: 5, multivariate: true}", 40),
        pytest.param("{name: gp, n_startup_trials: 5}", 18, marks=pytest.mark.slow),
        ("cmaes", 50),
    ],
)
def test_samplers_that_learn_from_trials_end_near_the_best_point(entered, sampler, trials_, monkeypatch) -> None:
    done = _bowl_of(entered, monkeypatch, sampler, trials_)
    assert _late(done) < 0.1


def _late(done: list[optuna.trial.FrozenTrial]) -> float:
    """The median loss of the last ten trials; 0.25 where they are drawn at random."""
    return median(1 - t.value for t in done[-10:])


def test_qmc_fills_the_space_evenly(entered, monkeypatch) -> None:
    done = _bowl_of(entered, monkeypatch, "qmc", 18)[2:]  # after the pipeline itself and the first draw, from which the space is read
    for name in ("inner.rule.lr", "objective.temperature"):
        assert len({int((t.params[name] - 0.1) / 0.8 * 16) for t in done}) >= 15  # of 16 bins; draws at random reach 10


def test_random_draws_do_not_learn(entered, monkeypatch) -> None:
    done = _bowl_of(entered, monkeypatch, "random", 40)
    assert _late(done) > 0.15


@pytest.mark.parametrize("kind", ["sampler", "pruner"])
def test_what_is_no_sampler_or_pruner_is_refused(entered, monkeypatch, kind) -> None:
    study, build = entered(), type(registry.SAMPLERS).build
    broken = {"sampler": registry.SAMPLERS, "pruner": registry.PRUNERS}[kind]
    monkeypatch.setattr(type(broken), "build", lambda self, choice, **injected: None if self is broken else build(self, choice, **injected))
    with pytest.raises(ConfigError, match=f"^{kind}: must be one of Optuna's {kind}s, got NoneType; return an optuna.{kind}s.Base{kind.title()}$"):
        _work(study)


def test_a_grid_runs_every_point_once(entered, monkeypatch) -> None:
    monkeypatch.setattr(trials, "events", lambda pipeline, *args, **more: _ended(0.5))
    study = entered("inner.rule.lr: {low: 0.1, high: 0.5, step: 0.1}\n  objective.delta: {low: 1, high: 5, step: 4}", "trials: 14\nsampler: grid\npruner: none")
    _work(study)
    points = [(round(t.params["inner.rule.lr"], 9), t.params["objective.delta"]) for t in study.queue.trials()]
    assert sorted(points) == [(lr, delta) for lr in (0.1, 0.2, 0.3, 0.4, 0.5) for delta in (1, 5)]


def _validating(accuracy):
    """In place of training: eight validations whose accuracy depends on the pipeline."""

    def run(pipeline, folder, resume, test):
        yield Started(folder, SimpleNamespace(has=lambda split: True, device=torch.device("cpu")), 8)
        for step in range(1, 9):
            each = tuple(accuracy(pipeline) + 0.01 * ((7 * i + step) % 5) for i in range(60))
            yield Validated(step, Score("val", FewShot(5, 1, 5, "prototype"), ACCURACY, 60, sum(each) / 60, 0.01, each))
        yield from _ended(accuracy(pipeline))

    return run


def _ended(accuracy):
    """The last event of a run with such a validation accuracy."""
    yield Finished(None, None, [], [], {"step": 8, "value": accuracy}, None, None, 0.0, "")


@pytest.mark.parametrize(
    "pruner",
    ["median", "{name: successive_halving, min_resource: 1, reduction_factor: 2}", "{name: hyperband, reduction_factor: 2}", "wilcoxon", "none"],
    ids=lambda p: p.strip("{").split(",")[0],
)
def test_a_pruner_ends_trials_that_are_far_worse_and_none_that_is_best(entered, pruner, monkeypatch) -> None:
    monkeypatch.setattr(trials, "events", _validating(lambda pipeline: 1 - pipeline.inner.rule.settings["lr"]))
    study = entered("inner.rule.lr: {low: 0.1, high: 0.9}", f"trials: 1\npruner: {pruner}\nset: {{outer.steps: 8}}")
    rates = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85]
    for lr in rates:
        study.queue.open().enqueue_trial({"inner.rule.lr": lr})
    _work(study)
    done = study.queue.trials()[1:]
    assert [t.params["inner.rule.lr"] for t in done] == rates
    pruned = [t.params["inner.rule.lr"] for t in done if t.state == TrialState.PRUNED and t.user_attrs[ENDED].startswith("pruned at outer step ")]
    assert 0.10 not in pruned
    if pruner == "none":
        assert pruned == []
        assert all(t.state == TrialState.COMPLETE for t in done)
    else:
        assert len([lr for lr in pruned if lr > 0.5]) >= 3


def test_signals_are_put_back(entered) -> None:
    before = signal.getsignal(signal.SIGTERM)
    study = entered(more="trials: 1")
    study.queue.give_back(study.queue.take(study.queue.open()).number, "x", counted=False)
    study.queue.take(study.queue.open())  # somebody else runs it
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Interrupted, match="stopped, while no trial ran"):
        _work(study)
    assert signal.getsignal(signal.SIGTERM) is before
