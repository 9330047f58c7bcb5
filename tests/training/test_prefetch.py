"""Episodes that another process has ready, against those drawn when they are needed."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.errors import Interrupted
from metaflowkit.reporting.train import train
from metaflowkit.training.outer_loop import OuterLoop
from metaflowkit.training.prefetch import episodes
from metaflowkit.trees import tensors
from tests.small import SMALL
from tests.training.test_loop import EXACT


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_episodes_are_the_same_to_the_bit_and_lie_in_memory_in_the_same_way(level, write) -> None:
    flow = build(read(write(SMALL), [f"augment.level={level}"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the other process has one
    try:
        pairs = list(zip(episodes(flow, 3, 6, 2), episodes(flow, 3, 6, 0), strict=True))
    finally:
        torch.set_num_threads(threads)
    assert len(pairs) == 4
    for ahead, now in pairs:
        assert (ahead.way, ahead.seed, ahead.step) == (now.way, now.seed, now.step)
        for a, b in zip(tensors((ahead.support, ahead.query)), tensors((now.support, now.query)), strict=True):
            assert torch.equal(a, b)
            assert (a.dtype, a.stride()) == (b.dtype, b.stride())


def test_a_run_that_is_interrupted_and_goes_on_is_the_same_to_the_bit(write, tmp_path, monkeypatch) -> None:
    text = SMALL.replace("steps: 4", "steps: 6")
    train(read(write(text)), tmp_path / "without")
    ahead, advance = read(write(text), ["outer.prefetch=2"]), OuterLoop.advance

    def stopped(self) -> None:
        advance(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(OuterLoop, "advance", stopped)
    with pytest.raises(Interrupted, match="after step 3, all is saved"):
        train(ahead, tmp_path / "with")
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(OuterLoop, "advance", advance)
    train(ahead, tmp_path / "with", resume=True)
    assert multiprocessing.active_children() == []
    assert (tmp_path / "without/metrics.jsonl").read_bytes() == (tmp_path / "with/metrics.jsonl").read_bytes()
    with_it, without = (torch.load(tmp_path / name / EXACT[2], weights_only=True)["model"] for name in ("with", "without"))
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_an_error_in_the_other_process_is_raised(write, monkeypatch) -> None:
    flow = build(read(write(SMALL)))
    monkeypatch.setattr(type(flow.tasks), "episode", lambda self, step: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        next(episodes(flow, 1, 2, 1))
