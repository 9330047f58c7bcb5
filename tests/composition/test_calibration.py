"""Stored statistics against means and variances of activations that are written out, and through a whole run."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.composition.flow import CALIBRATION, build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.measurement import protocol
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.reporting.train import train
from metaflowkit.training import checkpoint
from metaflowkit.training.evaluate_run import evaluate_run, load

SMALL = """
device: cpu
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 2}
model: {backbone: {name: conv4, width: 4, norm: per_step}}
inner: {steps: 2, rule: {name: sgd, lr: 0.1}}
outer: {steps: 2}
evaluate: {way: 3, query: 2, episodes: 4, val_episodes: 4, every: 1}
"""


@pytest.fixture
def pipeline(write):
    path = write(SMALL)
    return lambda *overrides: read(path, overrides)


def first_layer(flow, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    activations = flow.learner.model.backbone.blocks[0].conv(x)
    return activations.mean((0, 2, 3)), activations.var((0, 2, 3), correction=0)


def test_per_step_statistics_are_those_of_training_tasks(pipeline) -> None:
    flow = build(pipeline())
    norm = stored_norms(flow.learner.model)[0]
    sets = [x for i in range(CALIBRATION) for x in flow.episode(-i).support.x]
    means, variances = (torch.stack(activations) for activations in zip(*[first_layer(flow, x) for x in sets]))
    torch.testing.assert_close(norm.means[0], means.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.variances[0], variances.mean(0) + means.var(0, correction=0), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(norm.means[0], norm.means[2], rtol=1e-3)  # adaptation moves the activations


def test_frozen_statistics_are_those_of_the_untrained_network_and_stay(pipeline, tmp_path) -> None:
    chosen = pipeline("model.backbone.norm=frozen")
    flow = build(chosen)
    norm = stored_norms(flow.learner.model)[0]
    sets = [torch.cat([s, q]) for i in range(CALIBRATION) for s, q in zip(flow.episode(-i).support.x, flow.episode(-i).query.x)]
    means = torch.stack([first_layer(flow, x)[0] for x in sets])
    torch.testing.assert_close(norm.means[0], means.mean(0), rtol=1e-4, atol=1e-6)
    assert norm.means.shape == (1, 4)
    report = train(chosen, tmp_path / "run")
    saved = [checkpoint.load(path).model for path in sorted((tmp_path / "run" / "checkpoints").glob("step-*.pt"))]
    key = "backbone.blocks.0.norm.means"
    assert all(torch.equal(weights[key], norm.means) for weights in saved)
    assert not torch.equal(saved[0]["backbone.blocks.0.conv.weight"], saved[-1]["backbone.blocks.0.conv.weight"])
    assert "under the untrained weights (inductive)" in "\n".join(report.lines())


@pytest.mark.parametrize("rule", ["{name: sgd, lr: 0.1}", pytest.param("{name: higher, optimizer: Rprop}", marks=pytest.mark.slow)])
def test_a_run_saves_statistics_with_its_weights_and_is_measured_by_them(pipeline, tmp_path, rule) -> None:
    chosen = pipeline(f"inner.rule={rule}")
    train(chosen, tmp_path / "run")
    first, last = (checkpoint.load(tmp_path / "run" / "checkpoints" / f"step-{step:07d}.pt").model for step in (1, 2))
    key = "backbone.blocks.0.norm.means"
    assert first[key].shape == (3, 4)
    assert not torch.equal(first[key], last[key])
    scores, rules = evaluate_run(tmp_path / "run", [], "test", "last", None, {"episodes": 3})
    assert "statistics of training tasks, a set for every number of inner steps (inductive)" in rules
    assert {score.setting.readout for score in scores} == {"prototype", "adapted", "logistic"}
    flow = build(chosen)
    flow.learner.model.load_state_dict(last)
    flow.calibrate()
    assert all(torch.equal(value, last[name]) for name, value in flow.learner.model.state_dict().items())


def test_a_checkpoint_between_measurements_has_the_statistics_of_its_own_weights(pipeline, tmp_path) -> None:
    chosen = pipeline("outer.steps=3", "outer.save_every=1", "evaluate.every=3")
    train(chosen, tmp_path / "run")
    between = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-0000002.pt").model
    flow = build(chosen)
    flow.learner.model.load_state_dict(between)
    flow.calibrate()
    assert all(torch.equal(value, between[name]) for name, value in flow.learner.model.state_dict().items())


@pytest.mark.parametrize("norm", ["per_step", "frozen"])
def test_the_score_of_an_image_depends_on_no_other_query_image(pipeline, norm) -> None:
    flow = build(pipeline(f"model.backbone.norm={norm}"))
    episode = flow.episode(1)
    whole = flow.learner.adapt(episode.support, episode, query_scores).read
    alone = flow.learner.adapt(episode.support, episode._replace(query=type(episode.query)(episode.query.x[:, :1], episode.query.y[:, :1])), query_scores).read
    torch.testing.assert_close(alone, whole[:, :1])
    torch.testing.assert_close(embed(flow.model, episode.query.x[:, :1]), embed(flow.model, episode.query.x)[:, :1])
    transductive = build(pipeline("model.backbone.norm=batch"))
    assert not torch.allclose(embed(transductive.model, episode.query.x[:, :2]), embed(transductive.model, episode.query.x)[:, :2], rtol=1e-3)
    assert "(inductive)" in protocol(flow, ["prototype"])


def test_inductive_and_transductive_side_by_side(pipeline, tmp_path) -> None:
    """Measured with current statistics, a network is one with norm batch that has its weights."""
    chosen = pipeline("evaluate.statistics=both", "evaluate.readouts=[prototype, adapted]")
    report = train(chosen, tmp_path / "run")
    lines = "\n".join(report.lines())
    assert "set for every number of inner steps (inductive); with current statistics, batch normalisation uses those of the current set (transductive)" in lines
    assert lines.count("prototype, current statistics") == lines.count("adapted, current statistics") == lines.count("prototype ") > 0
    flow = load(tmp_path / "run")
    batch = build(pipeline("model.backbone.norm=batch"), train=False)
    batch.learner.model.load_state_dict({name: value for name, value in flow.learner.model.state_dict().items() if name in batch.learner.model.state_dict()})
    stored, current, expected = (
        evaluate(*arguments, way=3, query=2, episodes=4, statistics=statistics)
        for arguments, statistics in (((flow,), "stored"), ((flow,), "current"), ((batch,), "stored"))
    )
    assert [score.each for score in current] == [score.each for score in expected] != [score.each for score in stored]
    assert [score.setting.short for score in current] == ["3w1s prototype, current statistics", "3w1s adapted, current statistics"]
    with pytest.raises(ConfigError, match="evaluate.statistics: the network stores no statistics beside those of the current set; choose stored"):
        train(pipeline("model.backbone.norm=group", "evaluate.statistics=both"), tmp_path / "group")
    assert not (tmp_path / "group").exists()


def test_without_statistics_nothing_is_measured(pipeline) -> None:
    flow = build(pipeline(), train=False)
    with pytest.raises(ConfigError, match=r"model.backbone.norm: its statistics have not been taken yet; load the weights of a run"):
        evaluate(flow, way=3, query=2, episodes=2)
