"""Pipelines of tasks that measure themselves: built, trained, resumed to the bit, searched, diagnosed, and refused where keys do not belong to them."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

import metaflowkit as mfk
from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.doctor import diagnose
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.adaptation import evaluate_adaptation
from metaflowkit.reporting.train import train
from metaflowkit.search.specification import read_search
from metaflowkit.training.checkpoint import load as load_checkpoint

SINUSOID = """
tasks: {name: sinusoid, shot: 5, query: 5, meta_batch: 4}
model: {backbone: {name: mlp, widths: [8, 8], last: relu}, head: linear}
inner: {rule: {name: sgd, lr: 0.01}, loss: task, steps: 2}
objective: query_loss
outer: {steps: 6, save_every: 3}
evaluate: {every: 3, steps: [0, 2], episodes: 30, val_episodes: 10}
"""
WALK = """
tasks: {name: navigation, shot: 2, query: 2, meta_batch: 2, horizon: 4}
model: {backbone: {name: mlp, widths: [6], last: relu}, head: normal}
inner: {rule: {name: sgd, lr: 0.003}, loss: task, steps: 1}
objective: {name: bootstrapped_kl, delta: 2}
outer: {steps: 2}
evaluate: {every: 1, steps: [1], episodes: 4, val_episodes: 2}
"""
WEIGHTS = """
dataset: {name: digits, image_size: 8, by: image, fractions: {train: 0.4, val: 0.2, test: 0.2}}
tasks: {name: mislabelled, clean: 40}
model: {backbone: {name: mlp, widths: [8], last: relu}, head: linear}
inner: {rule: {name: sgd, lr: 0.3}, loss: example_weights, steps: 3}
objective: query_loss
outer: {learn: ['loss.*'], steps: 3}
evaluate: {every: 3, steps: [3]}
"""


def test_what_follows_from_the_tasks_is_written_out_and_reads_back(write) -> None:
    pipeline = read(write("tasks: {name: sinusoid, shot: 7}\nmodel: {head: linear, backbone: mlp}\ninner: {loss: task, steps: 4}\nobjective: query_loss\n"))
    assert (pipeline.evaluate.shot, pipeline.evaluate.steps, pipeline.augment.operations, pipeline.dataset) == (7, [0, 4], (), None)
    assert read(write(pipeline.to_yaml(), "again.yaml")).plain() == pipeline.plain()
    assert pipeline.metric == ("mse", False, False)
    assert read(write("dataset: glyphs\n", "glyphs.yaml")).metric == ("accuracy", True, True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dataset=glyphs"], "dataset: is not read, since the tasks 'sinusoid' make their own examples; leave it out"),
        (["augment={level: 2}"], "augment: is not read by the tasks 'sinusoid'; leave it out"),
        (["evaluate.way=3"], "evaluate.way: is of few-shot classification, and the tasks 'sinusoid' are measured after inner steps"),
        (["evaluate.readouts=[prototype]"], "evaluate.readouts: is of few-shot classification"),
        (["evaluate.steps=[]"], "evaluate.steps: must name at least one, got none; write such as [1, 5]"),
        (["tasks=views"], "dataset: is missing and has no default; add it"),
        (["tasks={name: mislabelled}"], "dataset: is missing and has no default; add it"),
    ],
    ids=str,
)
def test_keys_that_do_not_belong_together_are_refused(write, overrides, says) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write(SINUSOID), overrides)
    assert says in "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        (
            SINUSOID,
            ["model.head=prototype"],
            "model.head: 'prototype' reads a support set of classes, which the tasks 'sinusoid' have not; choose another, such as linear",
        ),
        (SINUSOID, ["model.backbone=conv4"], "model.backbone: "),
        (SINUSOID, ["inner.augment=affine"], "inner.augment: is of few-shot tasks, got 'affine' with 'sinusoid'; leave it out"),
        (
            WALK,
            ["inner.loss=example_weights"],
            "inner.loss: 'example_weights' needs a support set that is the same at every step, and that of the tasks 'navigation' is not",
        ),
        (WALK, ["evaluate.steps=[9]"], "tasks: draws must be at least 9, since so many inner steps are taken, got 8; raise tasks.draws"),
        (WALK, ["objective.delta=8"], "tasks: draws must be at least 9"),
        (WEIGHTS, ["outer.learn=['weight']"], "outer.learn.0: matches no parameter, got 'weight'"),
        (WEIGHTS, ["outer.learn=[]"], "outer.learn: must name at least one pattern, got none"),
    ],
    ids=str,
)
def test_what_only_building_can_find_is_refused_with_its_place(write, text, overrides, says) -> None:
    with pytest.raises(ConfigError) as caught:
        build(read(write(text), overrides))
    assert says in "\n".join(caught.value.problems)


def test_few_shot_tasks_refuse_what_is_of_the_others(write) -> None:
    with pytest.raises(
        ConfigError, match="inner.loss: 'example_weights' needs a support set .* tasks 'views' is not; choose another, or tasks such as mislabelled"
    ):
        read(write("dataset: glyphs\ninner: {loss: example_weights}\n"))
    with pytest.raises(ConfigError, match=r"evaluate\.steps: is read by tasks without classes alone, got \[1\]; leave it out, and choose inner\.steps"):
        read(write("dataset: glyphs\nevaluate: {steps: [1]}\n"))


@pytest.mark.parametrize("text", [SINUSOID, WALK, WEIGHTS], ids=["sinusoid", "navigation", "weights"])
def test_a_run_measures_before_and_after_and_resumes_to_the_bit(write, tmp_path, text) -> None:
    pipeline = read(write(text))
    whole = train(pipeline, tmp_path / "whole")
    part = train(pipeline, tmp_path / "part")
    last = sorted((tmp_path / "part" / "checkpoints").glob("step-*.pt"))[-1]
    last.unlink()
    again = train(pipeline, tmp_path / "part", resume=True)
    assert [str(score) for score in again.after] == [str(score) for score in whole.after] == [str(score) for score in part.after]
    one, other = (load_checkpoint(tmp_path / name / "checkpoints" / last.name).model for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "evaluations.jsonl").read_text().splitlines()]
    metric = pipeline.metric.name
    assert [line[metric] for line in lines if line["weights"] == "best"] == [score.value for score in whole.after]
    assert {line["metric"] for line in lines} == {metric}
    assert (tmp_path / "whole" / "curve.png").is_file()
    moved = {name for name in one if not torch.equal(one[name], build(pipeline).learner.model.state_dict()[name])}
    assert moved == ({"loss.weight"} if text is WEIGHTS else set(one))


def test_the_best_weights_have_the_lowest_error(write, tmp_path) -> None:
    report = train(read(write(SINUSOID), ["outer.optimizer.lr=0.05", "evaluate.every=1", "outer.steps=8"]), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [line["val/mse"] for line in lines if "val/mse" in line][1:]
    assert report.best["value"] == min(values) < max(values)
    text = "\n".join(report.lines())
    assert "test mse " in text
    assert "5-shot, 2 steps" in text
    assert "(30 held-out tasks, ± 95 % confidence of the mean; difference: trained minus untrained, task by task" in text


def test_evaluate_again_from_the_command_line_and_python(write, tmp_path) -> None:
    train(read(write(SINUSOID)), tmp_path / "run")
    done = CliRunner().invoke(
        main, ["evaluate", str(tmp_path / "run"), "--shot", "3", "--steps", "1", "--steps", "4", "--episodes", "25"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert [line.partition(":")[0] for line in done.output.splitlines()[:2]] == ["test 3-shot, 1 step", "test 3-shot, 4 steps"]
    assert "(25 held-out tasks)" in done.output
    flow = mfk.load(tmp_path / "run")
    (score,) = evaluate_adaptation(flow, "test", 3, iter([4]), 25)
    assert f"test 3-shot, 4 steps: {score} " in done.output
    with pytest.raises(ConfigError, match="these tasks are measured by themselves; call metaflowkit.evaluate_adaptation"):
        mfk.evaluate(flow)
    with pytest.raises(DataError, match="split 'train': tasks are held out for val and test"):
        evaluate_adaptation(flow, "train")
    with pytest.raises(ConfigError, match="steps: must be at least 0, got -1"):
        evaluate_adaptation(flow, steps=[-1])


def test_the_error_that_is_measured_is_that_of_plain_descent(write) -> None:
    """Oracle: steps of torch.optim.SGD on each held-out task."""
    flow = build(read(write(SINUSOID)))
    (score,) = evaluate_adaptation(flow, "val", 5, [2], 7)
    episode = flow.tasks.held_out("val", 0, 7, 5)
    errors = []
    for t in range(7):
        model = build(read(write(SINUSOID))).model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            (model.head(model.backbone(episode.support.x[t]), None, 1) - episode.support.y[t]).square().mean().backward()
            optimizer.step()
        errors.append((model.head(model.backbone(episode.query.x[t]), None, 1) - episode.query.y[t]).square().mean().item())
    assert score.each == pytest.approx(errors, rel=1e-5)


def test_a_search_minimises_an_error_and_says_so(write) -> None:
    write(SINUSOID, "p.yaml")
    search = read_search(write("pipeline: p.yaml\nspace: {inner.rule.lr: [0.001, 0.01, 0.1]}\n", "s.yaml"))
    assert search.metrics == {"val/mse": "minimize"}
    with pytest.raises(ConfigError, match="metrics: val/mse is better lower, got maximize; write minimize"):
        read_search(write("pipeline: p.yaml\nspace: {inner.rule.lr: [0.001, 0.01, 0.1]}\nmetrics: {val/mse: maximize}\n", "s.yaml"))
    with pytest.raises(ConfigError, match="metrics: there is no metric 'val/accuracy'"):
        read_search(write("pipeline: p.yaml\nspace: {inner.rule.lr: [0.001, 0.01, 0.1]}\nmetrics: {val/accuracy: maximize}\n", "s.yaml"))


@pytest.mark.parametrize("text", [SINUSOID, WALK, WEIGHTS], ids=["sinusoid", "navigation", "weights"])
def test_the_doctor_passes_them(write, text) -> None:
    findings = list(diagnose(read(write(text))))
    assert not [finding for finding in findings if finding.verdict.name == "WRONG"], findings
    assert any("finite differences" in finding.text for finding in findings)
    assert len([finding for finding in findings if finding.verdict.name == "PASSED" and "engine" in finding.text]) >= 3
