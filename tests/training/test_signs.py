"""Signs of failure: what is measured against closed forms and by hand, and a log that shows each sign once."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import yaml
from torch import nn

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.objectives import QueryLoss
from metaflowkit.training.events import Warned
from metaflowkit.training.loop import events
from metaflowkit.training.signs import WINDOW, Watch, costly_metrics, embedding_metrics, spread
from tests.small import SMALL

PIPELINE = pipeline_of(yaml.safe_load(SMALL))


@pytest.mark.parametrize(
    ("features", "deviation", "rank"),
    [
        (torch.ones(8, 6), 0.0, 1.0),
        (torch.eye(8), math.sqrt(7 / 8), 7.0),  # variance of each of 8 axes: 1/8 - 1/64; centred, 7 equal singular values
        (torch.linspace(-1, 1, 8)[:, None] * torch.ones(8, 6), 1.0, 1.0),  # two opposite directions on one line
    ],
)
def test_spread_of_known_embeddings(features, deviation, rank) -> None:
    measured = spread(features)
    assert measured["embedding_deviation"] == pytest.approx(deviation, abs=1e-6)
    assert measured["effective_rank"] == pytest.approx(rank, abs=1e-3)
    assert spread(1000 * features) == pytest.approx(measured, abs=1e-6)


def test_the_rank_of_few_embeddings_says_nothing() -> None:
    assert set(spread(torch.randn(5, 6))) == {"embedding_deviation"}
    assert set(spread(torch.randn(6, 5))) == {"embedding_deviation", "effective_rank"}


def test_inner_losses_and_cosine_are_those_of_the_steps_by_hand() -> None:
    flow = build(pipeline_of(yaml.safe_load(SMALL), ["inner.rule.lr=0.5", "inner.steps=3"]))
    learner, episode = flow.learner, flow.episode(1)
    measured = costly_metrics(flow, episode, learner.outcome(episode))
    params, support = {name: p.detach().clone() for name, p in flow.model.named_parameters()}, episode.support
    losses = []
    for _ in range(4):
        params = {name: p.requires_grad_() for name, p in params.items()}
        outputs = torch.func.functional_call(flow.model, params, (type(support)(support.x[0], support.y[0]), None, 3))
        losses.append(learner.loss.loss(outputs, support.y[0]))
        gradients = torch.autograd.grad(losses[-1], list(params.values()), allow_unused=True)
        params = {name: (p - 0.5 * g).detach() if g is not None else p.detach() for (name, p), g in zip(params.items(), gradients)}
    names = ["inner_loss_before", "inner_loss_after_1", "inner_loss_after_2", "inner_loss_after"]
    assert list(measured) == [*names, "cosine_to_query_loss"]
    assert [measured[name] for name in names] == pytest.approx([loss.item() for loss in losses], rel=1e-3)
    assert len(set(losses)) == 4
    plain = dataclasses.replace(learner, objective=QueryLoss()).outcome(episode).gradients
    a, b = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (learner.outcome(episode).gradients, plain))
    assert measured["cosine_to_query_loss"] == pytest.approx(nn.functional.cosine_similarity(a, b, dim=0).item(), abs=1e-5)


def test_of_many_inner_steps_the_loss_is_measured_before_and_after_them_alone() -> None:
    flow = build(pipeline_of(yaml.safe_load(SMALL), ["inner.steps=11", "objective=query_loss"]))
    episode = flow.episode(1)
    assert set(costly_metrics(flow, episode, flow.learner.outcome(episode))) == {"inner_loss_before", "inner_loss_after"}


def test_a_plain_objective_has_no_cosine_and_no_inner_loop_no_inner_loss() -> None:
    flow = build(pipeline_of(yaml.safe_load(SMALL), ["inner.steps=0", "objective=query_loss"]))
    episode = flow.episode(1)
    assert costly_metrics(flow, episode, flow.learner.outcome(episode)) == {}


HEALTHY = {
    "train/objective": 0.5,
    "train/gradient_norm": 3.0,
    "train/accuracy": 0.5,
    "train/embedding_deviation": 0.7,
    "train/effective_rank": 9.0,
    "train/inner_loss_before": 2.0,
    "train/inner_loss_after": 1.0,
    "train/cosine_to_query_loss": 0.9,
}


def log(then: dict[str, float], scores: list[float], steps: int = WINDOW) -> list[dict[str, float]]:
    """Healthy steps, then others, each third of them followed by a validation."""
    lines = [{"val/accuracy": scores[0], "val/ci95": 0.01}, *([HEALTHY] * WINDOW)]
    for score in scores[1:]:
        lines += [HEALTHY | then] * steps + [{"val/accuracy": score, "val/ci95": 0.01}]
    return lines


BETTER = [0.3, 0.35, 0.4]
CASES = {
    "collapse": ({"train/embedding_deviation": 0.01}, BETTER, "deviation 0.010 of about 1, effective rank 9.0"),
    "collapse, a line": ({"train/effective_rank": 1.2}, BETTER, "effective rank 1.2"),
    "standstill": ({"train/objective": 0.0}, BETTER, "raise objective.delta or inner.rule.lr"),
    "explosion": ({"train/gradient_norm": 1000.0}, BETTER, "from a norm of 3 in the first 10 steps to "),
    "conflict": ({"train/cosine_to_query_loss": -0.2}, BETTER, "(cosine -0.20, then -0.20)"),
    "inner loop": ({"train/inner_loss_after": 2.5}, BETTER, "(2 before, 2.5 after them)"),
    "shortcut": ({"train/accuracy": 0.8}, [0.3, 0.29, 0.305], "(accuracy 50 -> 80 %) while validation stands still (30.0 -> 30.5 %)"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_log_shows_its_sign_once_also_after_a_resume(name) -> None:
    then, scores, says = CASES[name]
    watch, lines = Watch(PIPELINE), log(then, scores)
    signs = [(i, sign) for i, line in enumerate(lines) for sign in watch.add(line)]
    assert [sign.name for _, sign in signs] == [name.split(",")[0]]
    assert says in signs[0][1].text
    where = signs[0][0]
    for cut in (1, where, where + 1, len(lines)):
        resumed = Watch(PIPELINE)
        resumed.replay([*lines[:cut], *([{"sign": signs[0][1].name, "text": ""}] if cut > where else [])])
        assert [i for i in range(cut, len(lines)) if resumed.add(lines[i])] == ([where] if cut <= where else [])


def test_a_healthy_log_shows_none() -> None:
    watch = Watch(PIPELINE)
    assert not [sign for line in log({}, BETTER) for sign in watch.add(line)]
    rising = log({"train/accuracy": 0.9}, BETTER)
    assert not [sign for line in rising for sign in Watch(PIPELINE).add(line)]


def test_an_ungrounded_target_on_a_collapsed_network_has_no_gradient_and_is_reported_as_collapse(tmp_path) -> None:
    class Collapsed(nn.Module):
        features = 6

        def __init__(self) -> None:
            super().__init__()
            self.direction = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.direction.expand(len(x), 6)

    settings = yaml.safe_load(SMALL) | {"model": {"backbone": Collapsed()}, "objective": {"name": "bootstrapped_kl", "delta": 3, "grounded": False}}
    pipeline = pipeline_of(settings, [f"outer.steps={WINDOW}", f"evaluate.every={WINDOW}", "tasks.way=6", "evaluate.readouts=[prototype]"])
    flow = build(pipeline)
    gradients = flow.learner.outcome(flow.episode(1)).gradients
    assert all(gradient.abs().max() < 1e-7 for gradient in gradients.values())
    assert embedding_metrics(flow, flow.episode(1)) == {"embedding_deviation": 0.0, "effective_rank": 1.0}
    said = {event.sign: event for event in events(pipeline, tmp_path / "run") if isinstance(event, Warned)}
    assert {"collapse", "standstill"} <= set(said)
    assert said["collapse"].step == WINDOW
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if line.get("sign") == "collapse"] == [said["collapse"].text]


def test_a_standstill_of_a_plain_objective_is_a_task_that_is_solved() -> None:
    watch = Watch(pipeline_of(yaml.safe_load(SMALL), ["objective=query_loss"]))
    (sign,) = (sign for line in log({"train/objective": 0.0}, BETTER) for sign in watch.add(line))
    assert sign.text.endswith(
        "so nothing is learnt; the training tasks are solved completely; make them harder, such as with a higher augment.level or tasks.way"
    )


def test_the_spread_is_that_of_at_most_forty_examples_of_different_images() -> None:
    flow = build(pipeline_of(yaml.safe_load(SMALL), ["tasks.way=30", "tasks.query=3"]))
    episode = flow.episode(1)
    x = episode.query.x[0]
    assert len(x) == 90
    with torch.no_grad():
        features = flow.model.backbone(x[::3])
    assert embedding_metrics(flow, episode) == pytest.approx(spread(features), rel=1e-3)
