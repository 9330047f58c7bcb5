"""The precisions of a pipeline: what is computed in which, and how far the meta-gradient is then from float64."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.reporting.train import train
from metaflowkit.types import Outcome
from tests.small import SMALL

TASKS = SMALL.replace("meta_batch: 1", "meta_batch: 2")


def outcomes(path, *overrides: str) -> dict[str, Outcome]:
    results = {}
    for precision in ("float64", "float32", "bf16"):
        flow = build(read(path, [f"precision={precision}", *overrides]))
        results[precision] = flow.learner.outcome(flow.episode(1))
    return results


def distance(a: Outcome, b: Outcome) -> float:
    differences = [(a.gradients[name].double() - g.double()).square().sum() for name, g in b.gradients.items()]
    return (torch.stack(differences).sum() / torch.stack([g.double().square().sum() for g in b.gradients.values()]).sum()).sqrt().item()


@pytest.mark.parametrize("engine", ["higher", "{name: vectorized, chunk: 1, workers: 1}", "{name: vectorized}"])
def test_each_precision_is_what_its_name_says_in_every_engine(engine, write) -> None:
    results = outcomes(write(TASKS), f"inner.engine={engine}", "objective=query_loss")
    assert {p: next(iter(o.gradients.values())).dtype for p, o in results.items()} == {
        "float64": torch.float64, "float32": torch.float32, "bf16": torch.float32,
    }  # fmt: skip
    assert distance(results["float32"], results["float64"]) < 1e-3
    assert 1e-3 < distance(results["bf16"], results["float64"]) < 0.5


def test_parameters_statistics_head_and_losses_stay_float32_in_bf16(write, monkeypatch) -> None:
    flow = build(read(write(TASKS), ["precision=bf16"]))
    seen = {}
    model = flow.model
    model.backbone.blocks[1].conv.register_forward_hook(lambda module, inputs, output: seen.update(convolution=output.dtype))
    model.head.register_forward_hook(lambda module, inputs, output: seen.update(features=inputs[0].dtype, scores=output.dtype))
    outcome = flow.learner.outcome(flow.episode(1))
    assert seen == {"convolution": torch.bfloat16, "features": torch.float32, "scores": torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert outcome.value.dtype == torch.float32


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=pytest.mark.slow), "float64"])
def test_a_run_goes_on_and_is_measured_in_its_precision(precision, write, tmp_path) -> None:
    pipeline = read(write(TASKS), [f"precision={precision}", "model.backbone.norm=per_step"])
    report = train(pipeline, tmp_path / "run")
    assert report.after
    saved = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    dtype = torch.float64 if precision == "float64" else torch.float32
    assert {value.dtype for value in saved["model"].values() if value.is_floating_point()} == {dtype}
    assert train(pipeline, tmp_path / "run", resume=True).plain()["trained"] == report.plain()["trained"]
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--way", "3", "--episodes", "4", "--query", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_tf32_without_a_gpu_is_refused(write, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"precision: tf32 is a precision of GPUs, and the device is cpu; choose float32 or bf16$"):
        build(read(write(TASKS + "precision: tf32\n")))


def test_tf32_is_allowed_within_the_meta_gradient_alone() -> None:
    from metaflowkit.engines.safety import exact_convolutions

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with exact_convolutions(tf32=True):
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "high")
    with exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


@pytest.mark.slow
def test_doctor_says_how_far_a_precision_is_off(write) -> None:
    result = CliRunner().invoke(main, ["doctor", str(write(TASKS + "precision: bf16\n"))], catch_exceptions=False)
    assert ", bf16: the meta-gradient is " in result.output
    result = CliRunner().invoke(main, ["doctor", str(write(TASKS + "precision: float64\n"))], catch_exceptions=False)
    assert "precision: float64, in which the gradient was checked" in result.output
