"""The doctor finds planted faults, and nothing where there is none."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from click.testing import CliRunner

from metaflowkit import doctor
from metaflowkit.cli import main
from metaflowkit.doctor import diagnose, doubled, finite_differences, small
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.flow import build
from metaflowkit.pipeline import read

SMALL = """
device: cpu
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic, image_size: 16}
augment: {level: 1}
tasks: {name: views, way: 5, shot: 2, query: 3, meta_batch: 3}
model: {backbone: {name: conv4, width: 3}}
inner: {steps: 2, rule: {name: sgd, lr: 0.1}}
objective: {name: bootstrapped_kl, delta: 2}
evaluate: {way: 3, query: 2}
"""
PLUGIN = """
import torch
from torch import nn
from metaflowkit.registry import BACKBONES


@BACKBONES.register("planted")
class Planted(nn.Module):
    \"\"\"A network with a fault.\"\"\"

    def __init__(self, shape):
        super().__init__()
        self.layer = FAULT
        self.features = 4

    def forward(self, x):
        return self.layer(x.flatten(1)[:, 116:124].contiguous()).tanh()


class Halved(torch.autograd.Function):
    \"\"\"Half of the right second derivative of a square.\"\"\"

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x + x.detach())


class Faulty(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):
        return Halved.apply(self.layer(x))
"""


@pytest.fixture
def pipeline(write):
    path = write(SMALL)
    return lambda *overrides: read(path, overrides)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A plugin whose network is an expression."""

    def make(fault: str) -> str:
        name = f"mfk_planted_{abs(hash(fault))}"
        (tmp_path / f"{name}.py").write_text(PLUGIN.replace("FAULT", fault))
        monkeypatch.syspath_prepend(tmp_path)
        return f"plugins=[{name}]"

    yield make
    from metaflowkit.registry import BACKBONES

    BACKBONES.classes.pop("planted", None)


def wrong(findings) -> list[str]:
    return [f.text for f in findings if f.right is False]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("objective={name: bootstrapped_kl, delta: 2, grounded: false, direction: reverse}",),
        ("objective=query_loss", "inner.order=first", "inner.learn={lr: layer}", "inner.rule.momentum=0.9"),
        ("model.head=linear", "inner.loss=cross_entropy", "inner.adapt=['head.*']", "inner.others=frozen", "evaluate.way=5", "evaluate.readouts=[prototype]"),
        ("inner.order=reptile",),
    ],
    ids=["default", "ungrounded", "first order, learned rates", "ANIL, frozen", "reptile"],
)
def test_a_right_pipeline_is_found_right(pipeline, overrides) -> None:
    findings = list(diagnose(pipeline(*overrides)))
    assert wrong(findings) == []
    text = "\n".join(map(str, findings))
    assert len(re.findall(r"right  engine .*: meta-gradient and finite differences differ by \de-(0[6-9]|1\d)", text)) == 3
    assert re.search(r"about [\d.e-]+ s and [\d,]+ MiB beyond what is loaded per outer step of 3 tasks on cpu", text)


def test_a_wrong_second_derivative_is_found_in_every_engine_that_runs(pipeline, planted) -> None:
    found = wrong(diagnose(pipeline(planted("Faulty()"), "model.backbone=planted", "objective=query_loss")))
    assert len([text for text in found if "meta-gradient and finite differences differ by" in text and "do not train with it" in text]) >= 2


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_module_that_is_known_to_be_unsafe_is_named(pipeline, planted) -> None:
    choice = pipeline(planted("nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))"), "model.backbone=planted", "inner.order=first")
    found = wrong(diagnose(choice))
    assert found[0].startswith("backbone.layer.parametrizations.weight.0 (_WeightNorm): torch's weight normalisation has a wrong second derivative")


def test_an_inner_loop_that_moves_nothing_is_found(pipeline) -> None:
    found = wrong(diagnose(pipeline("model.head=linear", "inner.adapt=['head.*']", "evaluate.way=5", "evaluate.readouts=[prototype]")))
    assert any(text.startswith("the inner loop moves 0 of 2 parameters; the inner loss does not depend on them, choose another inner.loss") for text in found)


def test_a_target_that_is_the_student_is_found(pipeline) -> None:
    found = wrong(diagnose(pipeline("objective={name: bootstrapped_kl, delta: 0, grounded: false}")))
    assert any(text.startswith("the objective learns 0 of 12 meta-parameters") and "raise objective.delta" in text for text in found)


def test_an_implicit_gradient_before_convergence_is_found(pipeline) -> None:
    (found,) = wrong(diagnose(pipeline("inner.order=implicit", "inner.proximal=1.0")))
    assert "order implicit: its gradient has the cosine" in found
    assert "the inner loop has not converged, raise inner.steps or inner.proximal" in found


def test_the_pipeline_is_made_small_and_stays_whole(pipeline) -> None:
    chosen = pipeline("inner.steps=9", "inner.order={name: truncate, last: 8}", "tasks.shot=5")
    made = small(chosen)
    assert {k: made.tasks.settings[k] for k in ("way", "shot", "query", "meta_batch")} == {"way": 3, "shot": 2, "query": 2, "meta_batch": 2}
    assert (made.inner.steps, made.inner.order.settings["last"]) == (3, 3)
    assert chosen.inner.steps == 9
    assert (made.objective, made.model, made.dataset) == (chosen.objective, chosen.model, chosen.dataset)


def test_the_oracle_leaves_the_weights_as_they_were(pipeline) -> None:
    parts, episode = doubled(build(small(pipeline())))
    before = {name: p.clone() for name, p in parts.meta().items()}
    gradients = VectorizedEngine(chunk=1).outcome(parts, episode).gradients
    for direction, slopes in finite_differences(parts, episode, gradients, 1):
        assert sum(x.square().sum() for x in direction.values()).item() == pytest.approx(1)
        assert len(slopes) == 4
    assert all(torch.equal(p, before[name]) for name, p in parts.meta().items())


def test_large_networks_are_given_one_task(pipeline, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "LARGE", 10)
    assert len(doubled(build(small(pipeline())))[1].support.x) == 1


def test_command_line_and_exit_codes(write) -> None:
    path = str(write(SMALL))
    done = CliRunner().invoke(main, ["doctor", path], catch_exceptions=False)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "all is right")
    failed = CliRunner().invoke(main, ["doctor", path, "--set", "objective={name: bootstrapped_kl, delta: 0, grounded: false}"], catch_exceptions=False)
    assert (failed.exit_code, failed.output.splitlines()[-1]) == (1, "1 finding wrong")


def test_findings_print_their_verdict() -> None:
    verdicts = [str(dataclasses.replace(doctor.Finding(True, "x"), right=right)) for right in (True, False, None)]
    assert verdicts == ["right  x", "WRONG  x", "       x"]
