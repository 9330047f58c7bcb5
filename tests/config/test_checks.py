"""Keys that are right each by itself and wrong together: every message with its place, and what is let through."""

from __future__ import annotations

import pytest

from metaflowkit.config.pipeline import read
from metaflowkit.config.types import Learn
from metaflowkit.errors import ConfigError

HEAD = "dataset: glyphs\n"


def problems(write, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(write(HEAD + text))
    return [problem.partition("p.yaml:")[2] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("inner", "at", "says"),
    [
        ("{steps: 2, order: {name: truncate, last: 3}}", "3}}", "inner.order.last: must be at most inner.steps, 2, got 3; lower it, or choose the order exact"),
        ("{order: implicit}", "implicit", "inner.proximal: must be above 0, since the order 'implicit' solves with it, got 0; set it, such as 2.0"),
        ("{order: reptile, remat: true}", "true", "inner.remat: does nothing in the order 'reptile', which stores no steps; leave it out"),
        ("{order: reptile, learn: {lr: layer}}", "layer", "inner.learn.lr: cannot be learned in the order 'reptile', whose gradient does not go"),
        ("{order: implicit, proximal: 1.0, learn: {lr: all}}", "all", "inner.learn.lr: cannot be learned in the order 'implicit', whose gradient does"),
        ("{learn: {lrr: all}}", "all", "inner.learn.lrr: the rule 'sgd' has no such number to learn; did you mean 'lr'?"),
        ("{learn: {nesterov: all}}", "all", "inner.learn.nesterov: the rule 'sgd' has no such number to learn; use one of lr, momentum, dampening"),
        ("{steps: 0, learn: {lr: all}}", "all", "inner.learn.lr: cannot be learned without inner steps; raise inner.steps"),
        ("{learn: {lr: row}}", "row", "inner.learn.lr.per: must be one of all, layer, parameter, element, got 'row'"),
        ("{learn: {lr: {per: layer, step: true}}}", "step", "inner.learn.lr.step: is no known key; did you mean 'per_step'?"),
        ("{learn: [lr]}", "[", "inner.learn: must be a mapping of settings, got a list; write such as {lr: layer}"),
        ("{order: truncated}", "truncated", "inner.order: there is no order 'truncated'; did you mean 'truncate'?"),
        ("{adapt: 3}", "3", "inner.adapt: must be a list (text each) or text or null, got 3"),
    ],
)  # fmt: skip
def test_inner_settings_that_contradict_each_other(write, inner, at, says) -> None:
    (found,) = problems(write, f"inner: {inner}")
    assert found.startswith(f"2:{len('inner: ') + inner.index(at) + 1}: {says}")


@pytest.mark.parametrize(("rule", "says"), [("sgd", "momentum is learned between 0 and 1, got 0"), ("{name: sgd, momentum: 1.0}", "got 1 to start from")])
def test_what_is_learned_starts_inside_its_range(write, rule, says) -> None:
    (problem,) = problems(write, f"inner: {{rule: {rule}, learn: {{momentum: all}}}}")
    assert "inner.learn.momentum: " in problem
    assert says in problem
    assert "; choose a start inside, or do not learn it" in problem


def test_what_is_learned_is_read_in_both_spellings_and_written_out(write) -> None:
    pipeline = read(write(HEAD + "inner: {rule: {name: sgd, momentum: 0.9}, learn: {lr: layer, momentum: {per: all, per_step: true}}}"))
    assert pipeline.inner.learn == {"lr": Learn("layer", False), "momentum": Learn("all", True)}
    assert read(write(pipeline.to_yaml())).plain() == pipeline.plain()


def test_no_readout_at_all(write) -> None:
    assert problems(write, "evaluate: {readouts: []}") == ["2:22: evaluate.readouts: must name at least one, got none; write such as [prototype]"]


@pytest.mark.parametrize(
    ("device", "remedy"),
    [
        ("gpu", "write cuda for a GPU"),
        ("gpu:1", "write cuda for a GPU"),
        ("tpu", "write cuda for a GPU"),
        ("cuda:x", "did you mean 'cuda'?"),
        ("CUDA", "did you mean 'cuda'?"),
        ("cdua", "did you mean 'cuda'?"),
        ("CPU", "did you mean 'cpu'?"),
        ("cpus", "did you mean 'cpu'?"),
        ("autom", "did you mean 'auto'?"),
    ],
)
def test_an_unknown_device_is_answered_with_the_legal_forms_and_the_one_that_is_meant(write, device, remedy) -> None:
    assert problems(write, f"device: '{device}'") == [f"2:9: device: must be auto, cpu, cuda or cuda:N, got '{device}'; {remedy}"]
