"""The doctor finds planted faults, and nothing where there is none."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import BACKBONES, ENGINES
from metaflowkit.doctor import Finding, Verdict, conclusion, diagnose, precision, reduced
from metaflowkit.doctor.branches import Branches, BranchMismatch
from metaflowkit.doctor.gradients import compare_slopes
from metaflowkit.doctor.oracle import Oracle, along, length, slopes
from metaflowkit.doctor.plain_loop import plain_outcome, plain_value
from metaflowkit.doctor.reduced import doubled, small
from metaflowkit.errors import ConfigError

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
PLUGIN = '''
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.config.registry import BACKBONES, ENGINES


@BACKBONES.register("planted")
class Planted(nn.Module):
    """A network with a fault."""

    def __init__(self, shape):
        super().__init__()
        self.layer = FAULT
        self.features = 4

    def forward(self, x):
        return self.layer(x.flatten(1)[:, 116:124].contiguous() + 0.3 * x.flatten(1)[:, 36:44]).tanh()


class Square(torch.autograd.Function):
    """A square whose second derivative is wrong by a share."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.save_for_backward(x)
        ctx.share = share
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (2 - ctx.share) * x + g * ctx.share * x.detach(), None


class Layer(nn.Module):
    def __init__(self, then=lambda x: x):
        super().__init__()
        self.layer, self.then = nn.Linear(8, 4), then

    def forward(self, x):
        return self.then(self.layer(x))


class Hooked(Layer):
    """Its output is doubled by a forward hook."""

    def __init__(self):
        super().__init__()
        self.layer.register_forward_hook(lambda module, inputs, output: 2 * output)


class Standardised(nn.Module):
    """A convolution with standardised weights, and ReLUs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 16, 3, padding=1), nn.Conv1d(16, 16, 3, padding=1)

    def forward(self, x):
        for layer in (self.first, self.second):
            w = layer.weight
            w = (w - w.mean((1, 2), keepdim=True)) / (w.var((1, 2), keepdim=True) + 1e-5).sqrt()
            x = F.conv1d(x if x.dim() == 3 else x[:, None], w, layer.bias, padding=1).relu()
        return x.mean(2)[:, :4]


class Offset(Layer):
    """Normalises by a variance E[x^2] - E[x]^2 around a large mean."""

    def forward(self, x):
        x = self.layer(x) + OFFSET
        mean = x.mean(0)
        return (x - mean) / ((x * x).mean(0) - mean * mean + 1e-5).sqrt()


class Bent(torch.autograd.Function):
    """A staircase on a line that says it is the line: no finite difference converges."""

    @staticmethod
    def forward(ctx, x):
        return x + 1e-7 * (x * 1e9).floor().fmod(3)

    @staticmethod
    def backward(ctx, g):
        return g


class SineBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, x):
        return g * x.cos()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("derivative for aten::sine_backward is not implemented")


class Sine(torch.autograd.Function):
    """A sine without second derivative, as some of torch's operations are."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return SineBack.apply(g, *ctx.saved_tensors)


class Kept(Layer):
    """Adds what it computed at its first call."""

    kept = None

    def forward(self, x):
        if torch.is_grad_enabled() and self.kept is None:
            self.kept = (self.layer.weight * self.layer.weight).sum().exp()
        return self.layer(x) * (1 if self.kept is None else self.kept)


def broken(x):
    return x.no_such_method()


@ENGINES.register("scaled")
class Scaled(VectorizedEngine):
    """Gradients that are 1.001 times too large."""

    def __init__(self):
        super().__init__(chunk=1, workers=1)

    def outcome(self, learner, episode):
        outcome = super().outcome(learner, episode)
        return outcome._replace(gradients={name: 1.001 * g for name, g in outcome.gradients.items()})
'''


NUMBERS = itertools.count()


@pytest.fixture
def pipeline(write):
    path = write(SMALL)
    return lambda *overrides: read(path, overrides)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A plugin whose network is an expression."""

    def make(fault: str, offset: float = 0.0) -> tuple[str, str]:
        BACKBONES.classes.pop("planted", None)
        ENGINES.classes.pop("scaled", None)
        name = f"mfk_planted_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(PLUGIN.replace("FAULT", fault).replace("OFFSET", str(offset)))
        monkeypatch.syspath_prepend(tmp_path)
        return f"plugins=[{name}]", "model.backbone=planted"

    yield make
    BACKBONES.classes.pop("planted", None)
    ENGINES.classes.pop("scaled", None)


@pytest.fixture
def quick(monkeypatch):
    """Float32 is measured on one task of each engine."""
    monkeypatch.setattr(precision, "TASKS", 1)


def texts(findings, verdict: Verdict = Verdict.WRONG) -> list[str]:
    return [f.text for f in findings if f.verdict is verdict]


DIFFER = "a plain loop of torch.autograd: meta-gradient and finite differences differ by"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(("objective={name: bootstrapped_kl, delta: 2, grounded: false, direction: reverse}",), marks=pytest.mark.slow),
        ("objective=query_loss", "inner.order=first", "inner.learn={lr: layer}", "inner.rule.momentum=0.9"),
        ("model.head=linear", "inner.loss=cross_entropy", "inner.adapt=['head.*']", "inner.others=frozen", "evaluate.way=5", "evaluate.readouts=[prototype]"),
        pytest.param(("inner.adapt=['backbone.blocks.1.*', 'backbone.blocks.2.*']",), marks=pytest.mark.slow),
        pytest.param(("inner.order=reptile", "inner.proximal=0.5"), marks=pytest.mark.slow),
    ],
    ids=["default", "ungrounded", "first order, learned rates", "ANIL, frozen", "a part adapted", "reptile, proximal"],
)
def test_a_right_pipeline_is_found_right(pipeline, overrides, quick, monkeypatch) -> None:
    monkeypatch.setattr(precision, "BOUND", 2.0)  # what float32 does is not checked here
    findings = list(diagnose(pipeline(*overrides)))
    assert texts(findings) == texts(findings, Verdict.UNDECIDED) == []
    text = "\n".join(map(str, findings))
    assert re.search(rf"^passed +{DIFFER} \de-(0[89]|1\d)", text, re.MULTILINE)
    assert (
        len(re.findall(r"^passed +engine .*: its value is \de[-+]\d\d and its meta-gradient \de-?.* away from those of a plain loop", text, re.MULTILINE)) == 4
    )
    assert re.search(r"about [\d.e-]+ s and [\d,]+ MiB beyond what is loaded per outer step of 3 tasks on cpu", text)


def check(pipeline, *overrides) -> list[Finding]:
    return list(diagnose(pipeline("objective=query_loss", *overrides)))


def test_a_second_derivative_that_is_wrong_by_a_thousandth_is_found(pipeline, planted, quick) -> None:
    findings = check(pipeline, *planted("Layer(lambda x: Square.apply(x, 1e-3))"))
    (findings_text,) = [text for text in texts(findings) if text.startswith(DIFFER)]
    assert "do not train with it: an operation has a wrong derivative" in findings_text
    right = check(pipeline, *planted("Layer(lambda x: Square.apply(x, 0.0))"))
    assert texts(right) == []


def test_a_detached_inner_gradient_is_found_in_the_engine_that_detaches_it(pipeline, planted, quick, monkeypatch) -> None:
    from metaflowkit.engines.autodiff import Eager

    grad = Eager.grad
    monkeypatch.setattr(
        Eager,
        "grad",
        lambda self, f, params, create_graph: {n: g.detach() if n.endswith("bias") else g for n, g in grad(self, f, params, create_graph).items()},
    )
    findings_text = texts(check(pipeline, *planted("Layer()")))
    assert [text.partition(":")[0] for text in findings_text] == ["engine auto (the pipeline's)", "engine vectorized, chunk 1"]
    assert all("this engine computes something else than the model as it is called plainly: choose another inner.engine" in text for text in findings_text)


def test_an_engine_whose_gradients_are_scaled_is_named(pipeline, planted, quick) -> None:
    (findings_text,) = texts(check(pipeline, *planted("Layer()"), "inner.engine=scaled"))
    assert findings_text.startswith("engine scaled (the pipeline's): its value is 0e+00 and its meta-gradient 1e-03 (relative) away from those of a plain loop")


def test_an_engine_that_leaves_a_hook_out_is_named_or_refuses(pipeline, planted, quick) -> None:
    findings = check(pipeline, *planted("Hooked()"), "inner.engine=higher")
    findings_text = texts(findings)
    assert findings_text
    assert all(text.startswith("engine higher") or "hook" in text for text in findings_text)
    assert any(text.startswith(DIFFER) for text in texts(findings, Verdict.PASSED))


def test_an_engine_that_refuses_is_a_finding(pipeline, planted, quick, monkeypatch) -> None:
    def refused(self, learner, episode):
        raise ConfigError("inner.engine: this model has hooks")

    from metaflowkit.engines.higher_loop import HigherEngine

    monkeypatch.setattr(HigherEngine, "outcome", refused)
    choice = planted("Layer()")
    assert "engine higher: inner.engine: this model has hooks" in texts(check(pipeline, *choice), Verdict.FACT)
    assert "engine higher (the pipeline's): inner.engine: this model has hooks" in texts(check(pipeline, *choice, "inner.engine=higher"))


def test_weight_normalisation_is_named_in_every_order(pipeline, planted, quick) -> None:
    choice = planted("nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))")
    says = "backbone.layer.parametrizations.weight.0 (_WeightNorm): torch's weight normalisation has a wrong second derivative"
    for order in ("exact", "first"):
        findings = check(pipeline, *choice, f"inner.order={order}")
        assert any(says in text for text in texts(findings))
        assert any(text.startswith(DIFFER) for text in texts(findings))  # seen in the gradient too, not known by its name alone


def test_standardised_weights_and_many_kinks_give_no_alarm(pipeline, planted, quick) -> None:
    findings = check(pipeline, *planted("Standardised()"), "inner.steps=3", "inner.rule.lr=0.5")
    assert texts(findings) == texts(findings, Verdict.UNDECIDED) == []
    assert any(text.startswith(DIFFER) for text in texts(findings, Verdict.PASSED))


@pytest.mark.slow
def test_a_deep_network_of_relus_gives_no_alarm(pipeline) -> None:
    """Millions of units, of which some change sides at every distance that rounding allows: it takes held branches."""
    learner, episode, _ = doubled(build(small(pipeline("model.backbone=resnet18", "objective=query_loss", "dataset.image_size=32"))))
    reference = plain_outcome(learner, episode)
    oracle = Oracle(learner, episode, plain_value)
    finding = compare_slopes(learner, reference, "plain", oracle, list(slopes(oracle, reference.gradients, 1, lambda text: None)))
    assert finding.verdict is Verdict.PASSED


def test_where_differences_do_not_converge_the_doctor_cannot_tell(pipeline, planted, quick) -> None:
    findings = check(pipeline, *planted("Layer(lambda x: Bent.apply(x.double()).to(x))"))
    assert texts(findings) == []
    (findings_text,) = texts(findings, Verdict.UNDECIDED)
    assert "finite differences do not converge" in findings_text
    assert "try smooth activations" in findings_text


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("Layer(lambda x: x.exp().mul_(2))", "a module changes a tensor in place"),
        ("Layer(lambda x: checkpoint(torch.tanh, x, use_reentrant=True))", "activation checkpointing"),
        ("Layer(lambda x: checkpoint(nn.functional.softplus, x, use_reentrant=False))", "activation checkpointing"),
        (
            "Layer(Sine.apply)",
            "the network calls an operation without second derivative (derivative for aten::sine_backward is not implemented)",
        ),
        ("Kept()", "a module keeps a tensor with its graph from an earlier call; compute it anew in every forward, or detach it"),
    ],
    ids=["in place", "checkpoint, reentrant", "checkpoint", "no second derivative", "kept graph"],
)
@pytest.mark.filterwarnings("ignore:.*use_reentrant", "ignore:None of the inputs")
def test_what_torch_refuses_to_differentiate_is_a_finding_and_no_traceback(pipeline, planted, quick, fault, says) -> None:
    findings_text = texts(check(pipeline, *planted(fault)))
    assert any(says in text for text in findings_text)
    if "checkpoint" in fault:
        assert any("set inner.remat: true" in text for text in findings_text)
    assert "Traceback" not in "\n".join(findings_text)


def test_a_bug_in_a_forward_is_one_message_with_its_place(write, planted) -> None:
    plugins, backbone = planted("Layer(broken)")
    done = CliRunner().invoke(main, ["doctor", str(write(SMALL)), "--set", plugins, "--set", backbone], catch_exceptions=False)
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if "AttributeError" in line]
    assert re.fullmatch(
        r"model: a plain forward call raises AttributeError: 'Tensor' object has no attribute 'no_such_method' at .*mfk_planted_\d+\.py:\d+; repair the module there",
        line,
    )
    assert "Traceback" not in done.output


def test_a_bug_in_an_objective_is_one_message_with_its_place(pipeline, planted, monkeypatch) -> None:
    from metaflowkit.objectives.query_loss import QueryLoss

    def faulty(self, adapted, task):
        return {}["x"]

    monkeypatch.setattr(QueryLoss, "__call__", faulty)
    with pytest.raises(ConfigError, match=r"the inner loop or the objective raises KeyError: 'x' at .*test_doctor.py:\d+; repair it there"):
        check(pipeline)


def test_features_that_do_not_depend_on_the_image_are_found(pipeline, planted, quick) -> None:
    findings_text = texts(check(pipeline, *planted("Layer(lambda x: 0 * x + 1)")))
    assert findings_text[0] == "the features are the same for all images, so nothing can be learned; see that the backbone's output depends on its input"
    assert any(text.startswith("the objective learns 0 of 2 meta-parameters") for text in findings_text)


def test_a_gradient_that_is_not_a_number_is_found(pipeline, planted, quick) -> None:
    findings_text = texts(check(pipeline, *planted("Layer(lambda x: (x - x).norm(dim=1, keepdim=True).sqrt() + x)")))
    assert findings_text[-1].startswith("the meta-gradient, first in backbone.layer.layer.weight, is not finite; lower inner.rule.lr")


def test_an_inner_loop_that_moves_nothing_is_found(pipeline, quick) -> None:
    findings_text = texts(diagnose(pipeline("model.head=linear", "inner.adapt=['head.*']", "evaluate.way=5", "evaluate.readouts=[prototype]")))
    assert any(
        text.startswith("the inner loop cannot be run: inner loss: Contrastive depends on no parameter that the inner loop moves") for text in findings_text
    )


def test_a_target_that_is_the_student_is_found(pipeline, quick) -> None:
    findings_text = texts(diagnose(pipeline("objective={name: bootstrapped_kl, delta: 0, grounded: false}")))
    assert any(text.startswith("the objective learns 0 of 12 meta-parameters") and "raise objective.delta" in text for text in findings_text)


@pytest.mark.slow
def test_an_inner_loop_that_amplifies_rounding_gives_no_alarm(pipeline, planted, quick) -> None:
    findings = check(pipeline, *planted("Layer()"), "inner.order={name: implicit, iterations: 30}", "inner.proximal=2.0", "inner.steps=60", "inner.rule.lr=0.2")
    assert all(text.startswith("order implicit") for text in texts(findings))
    undecided = texts(findings, Verdict.UNDECIDED)
    assert any("finite differences do not converge" in text for text in undecided)
    assert any("where rounding images and weights in float64 does" in text for text in undecided)
    assert any("so that no float32 arithmetic could do better: lower inner.rule.lr or inner.steps" in text for text in undecided)


@pytest.mark.slow
def test_an_implicit_gradient_before_convergence_is_found(pipeline, planted, quick) -> None:
    choice = (*planted("Layer()"), "inner.order={name: implicit, iterations: 30}", "inner.proximal=20.0")
    (findings_text,) = texts(check(pipeline, *choice, "inner.steps=2", "inner.rule.lr=0.01"))
    assert re.search(r"order implicit: its gradient has the cosine .* and \de-\d\d away from its own after 8 inner steps", findings_text)
    assert "the inner loop has not converged, raise inner.steps or inner.proximal" in findings_text
    assert texts(check(pipeline, *choice, "inner.steps=60", "inner.rule.lr=0.01")) == []


@pytest.mark.parametrize(("offset", "lossy"), [(0.0, False), (300.0, True)])
def test_float32_that_loses_digits_is_wrong_and_sound_float32_is_not(pipeline, planted, offset, lossy) -> None:
    findings = [f for f in check(pipeline, *planted("Offset()", offset)) if "float32" in f.text]
    own = findings[0]
    assert own.text.startswith("engine auto (the pipeline's), float32: the meta-gradient is ")
    assert "in the median of 5 tasks of 5 ways" in own.text
    assert own.verdict is (Verdict.WRONG if lossy else Verdict.PASSED)
    if lossy:
        assert "on the same branches of ReLUs and poolings" in own.text
        assert "float32 arithmetic loses digits, most often in a variance" in own.text


@pytest.mark.parametrize(
    ("measured", "verdict", "says"),
    [
        ((0.04, 3e-5, 6e-6), Verdict.PASSED, "ill-conditioned, not wrong, since units that rounding moves across their kinks change the gradient"),
        ((0.80, 5e-3, 6e-6), Verdict.WRONG, "float32 arithmetic loses digits"),
        ((0.009, 5e-3, 6e-6), Verdict.PASSED, "9e-03 away from the one in float64"),
        ((0.04, 0.03, 0.02), Verdict.UNDECIDED, "so that no float32 arithmetic could do better"),
        ((0.04, None, None), Verdict.UNDECIDED, "cannot be told, since other operations run each time"),
        ((float("nan"), None, None), Verdict.WRONG, "the meta-gradient is not finite where the one in float64 is"),
    ],
    ids=["kinks", "lost digits", "below the bound", "steep", "other operations", "not finite"],
)
def test_kinks_and_lost_digits_are_told_apart(measured, verdict, says) -> None:
    finding = precision._judged("auto", "float32", [precision.Precision(*measured)] * 3, 5)
    assert finding.verdict is verdict
    assert says in finding.text


def test_the_pipeline_is_made_small_and_stays_whole(pipeline) -> None:
    chosen = pipeline("inner.steps=9", "inner.order={name: truncate, last: 8}", "tasks.shot=5")
    made = small(chosen)
    assert {k: made.tasks.settings[k] for k in ("way", "shot", "query", "meta_batch")} == {"way": 3, "shot": 2, "query": 2, "meta_batch": 2}
    assert (made.inner.steps, made.inner.order.settings["last"]) == (3, 3)
    assert chosen.inner.steps == 9
    assert (made.objective, made.model, made.dataset) == (chosen.objective, chosen.model, chosen.dataset)


def test_the_oracle_converges_on_held_branches_and_leaves_the_weights_as_they_were(pipeline) -> None:
    learner, episode, _ = doubled(build(small(pipeline())))
    before = {name: p.clone() for name, p in learner.meta().items()}
    gradients = plain_outcome(learner, episode).gradients
    oracle = Oracle(learner, episode, plain_value)
    (slope,) = slopes(oracle, gradients, 1, lambda text: None)
    assert slope.held
    assert length(slope.direction) == pytest.approx(1)
    assert slope.uncertainty < 1e-7 * length(gradients)
    assert slope.value == pytest.approx(along(gradients, slope.direction), rel=1e-7)
    assert all(torch.equal(p, before[name]) for name, p in learner.meta().items())


def test_branches_are_held_and_other_operations_are_refused() -> None:
    operations = [
        torch.relu,
        torch.abs,
        lambda x: torch.nn.functional.leaky_relu(x, 0.1),
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: torch.nn.functional.hardtanh(x),
        lambda x: torch.maximum(x, -x),
        lambda x: torch.nn.functional.max_pool2d(x, 2),
        lambda x: torch.nn.functional.adaptive_max_pool2d(x, 1),
        lambda x: x.max(-1).values,
        lambda x: torch.where(x > 0, x, 2 * x),
        lambda x: x.clone().relu_(),
    ]
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for operation in operations:
        branches, leaf = Branches(), x.clone().requires_grad_()
        plain = operation(leaf)
        (slope,) = torch.autograd.grad(plain.sum(), leaf)
        with branches.used():
            assert torch.equal(operation(x), plain)
        with branches.used():
            far = operation(x - 5 * slope)  # on the branch of x every one of these is linear
        assert torch.allclose((far - plain).sum(), -5 * (slope * slope).sum())
    with pytest.raises(BranchMismatch, match="1 operations with branches were recorded, and 0 ran"), branches.used():
        pass


def test_large_networks_are_given_one_task_and_one_direction_and_it_is_said(pipeline, planted, monkeypatch, quick) -> None:
    monkeypatch.setattr(reduced, "LARGE", 10)
    monkeypatch.setattr("metaflowkit.doctor.diagnosis.LARGE", 10)
    findings = check(pipeline, *planted("Layer()"), "inner.steps=3")
    assert "a large network: checked on one task, 2 inner steps, along one direction" in texts(findings, Verdict.FACT)
    assert any("1 of 1 directions" in text for text in texts(findings, Verdict.PASSED))
    assert len(doubled(build(small(pipeline())))[1].support.x) == 1


def test_command_line_and_exit_codes(write, planted, quick) -> None:
    path = str(write(SMALL))
    right = [word for choice in (*planted("Layer()"), "objective=query_loss") for word in ("--set", choice)]
    done = CliRunner().invoke(main, ["doctor", path, *right], catch_exceptions=False)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "all checks passed")
    assert re.search(r"^ +\d+ s  finite differences along direction 1 of 3$", done.stderr, re.MULTILINE)
    failed = CliRunner().invoke(main, ["doctor", path, *right, "--set", "inner.engine=scaled"], catch_exceptions=False)
    assert (failed.exit_code, failed.stdout.splitlines()[-1]) == (1, "1 finding wrong")


def test_findings_print_their_verdict_and_are_summed_up() -> None:
    finding = Finding(Verdict.PASSED, "x")
    named = {verdict: dataclasses.replace(finding, verdict=verdict) for verdict in Verdict}
    assert [str(named[verdict]) for verdict in Verdict] == ["             x", "passed       x", "WRONG        x", "cannot tell  x"]
    assert conclusion([named[Verdict.PASSED], named[Verdict.FACT]]) == "all checks passed"
    assert conclusion([named[Verdict.UNDECIDED]]) == "nothing is wrong, 1 could not be decided"
    assert conclusion([named[Verdict.WRONG]] * 2 + [named[Verdict.UNDECIDED]]) == "2 findings wrong, 1 could not be decided"


def test_findings_on_a_terminal_stand_on_lines_of_their_own() -> None:
    code = (
        "import time\nfrom metaflowkit.doctor.watching import watching\n"
        "with watching() as (tell, away):\n    for i in range(2):\n        tell('computing'); time.sleep(0.3)\n"
        "        with away(): print('passed       finding', i, flush=True)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while read := os.read(ours, 4096):
            shown += read
    os.close(ours)
    assert process.wait(30) == 0
    assert b"computing" in shown
    assert re.findall(rb"(?:\n|\r|\x1b\[2K)passed       finding (\d)\r\n", shown) == [b"0", b"1"]


def test_float32_of_the_pipelines_own_engine_is_measured_on_three_tasks_also_where_they_are_slow(pipeline, monkeypatch) -> None:
    flow = build(pipeline())
    for seconds_a_task, tasks in ((20, 3), (70, 1)):
        clock = itertools.count(0, seconds_a_task)
        monkeypatch.setattr(precision, "time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        first = next(precision.precision(flow, {"own": flow.learner.engine}, "own", lambda text: None, seconds=60.0))
        assert f"in the median of {tasks} task" in first.text
