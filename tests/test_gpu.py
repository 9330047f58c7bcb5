"""What users run on a GPU; skipped where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import Interrupted
from metaflowkit.evaluation.measurement import measurements
from metaflowkit.reporting.train import train
from metaflowkit.training.outer_loop import OuterLoop
from tests.oracles import relative

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

QUICKSTART = Path(__file__).parents[1] / "pipelines" / "quickstart.yaml"
SMALL = ["device=cuda", "model.backbone.width=8", "outer.steps=6", "outer.save_every=2", "evaluate.every=3", "evaluate.episodes=20", "evaluate.val_episodes=20"]
GRAPH = "inner.engine={name: vectorized, graph: true}"


def flow(*overrides: str):
    return build(read(QUICKSTART, [*SMALL, *overrides]))


def outcomes(engine: VectorizedEngine, built) -> list:
    """Three steps of gradient descent, of which an engine that records replays the last two."""
    learner = dataclasses.replace(built.learner, engine=engine)
    steps = []
    for step in (1, 2, 3):
        steps.append(learner.outcome(built.episode(step)))
        with torch.no_grad():
            for name, p in learner.model.named_parameters():
                p -= 0.1 * steps[-1].gradients[name]
    return steps


@pytest.mark.parametrize(
    "settings", [{"graph": True}, {"graph": True, "chunk": 2}, pytest.param({"graph": True, "compile": True}, marks=pytest.mark.slow)], ids=str
)
def test_a_replayed_graph_gives_what_the_engine_gives_while_the_parameters_move(settings) -> None:
    expected, replayed = (outcomes(VectorizedEngine(**chosen), flow("precision=float64")) for chosen in ({"chunk": settings.get("chunk")}, settings))
    for a, b in zip(expected, replayed):
        assert relative(a.gradients, b.gradients) < 1e-9
        assert torch.allclose(a.value, b.value, rtol=1e-9)
    assert relative(expected[0].gradients, expected[2].gradients) > 1e-3


def test_a_meta_gradient_never_waits_for_the_gpu() -> None:
    built = flow(GRAPH)
    for step in (1, 2, 3):
        episode = built.episode(step)
        torch.cuda.set_sync_debug_mode("error" if step != 2 else "default")  # recording waits
        try:
            built.learner.outcome(episode)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_same_gradients_as_on_a_cpu() -> None:
    results = []
    for device in ("cpu", "cuda"):
        built = flow(f"device={device}", "precision=float64", "augment=[]")
        results.append({name: g.cpu() for name, g in built.learner.outcome(built.episode(1)).gradients.items()})
    assert relative(*results) < 1e-9


def test_the_same_accuracy_as_on_a_cpu() -> None:
    results = []
    for device in ("cpu", "cuda"):
        built = flow(f"device={device}")
        results.append({(s.setting, s.metric.name): s.value for scores in measurements(built) for s in scores})
    assert results[0].keys() == results[1].keys()
    assert all(abs(results[0][key] - results[1][key]) < 0.01 for key in results[0]), results


@pytest.mark.parametrize("more", [[], [GRAPH], [GRAPH, "outer.prefetch=2"], ["precision=bf16"], ["precision=tf32", GRAPH]], ids=str)
def test_a_stopped_run_goes_on_to_the_same_bits(more, tmp_path, monkeypatch) -> None:
    pipeline, advance = read(QUICKSTART, [*SMALL, *more]), OuterLoop.advance
    train(pipeline, tmp_path / "whole")

    def killed(self) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(OuterLoop, "advance", killed)
    with pytest.raises(Interrupted):
        train(pipeline, tmp_path / "cut")
    monkeypatch.setattr(OuterLoop, "advance", advance)
    train(pipeline, tmp_path / "cut", resume=True)
    for name in ("metrics.jsonl", "checkpoints/best.pt", "checkpoints/step-0000006.pt"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
