"""A small run on glyphs: resumed runs write the same bytes; a used directory is refused."""

from __future__ import annotations

import pytest

from metaflowkit.errors import CheckpointError, RunError
from metaflowkit.pipeline import read
from metaflowkit.train import _Loop, train

SMALL = """
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}
model: {backbone: {name: conv4, width: 4}}
inner: {steps: 1}
outer: {steps: 6}
evaluate: {every: 2, way: 3, query: 2, episodes: 4, val_episodes: 4}
"""


def test_resume_is_bit_identical_and_refusals_keep_the_run(write, tmp_path, monkeypatch) -> None:
    pipeline = read(write(SMALL))
    train(pipeline, tmp_path / "whole")
    advance = _Loop.advance

    def killed(self) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(_Loop, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        train(pipeline, tmp_path / "cut")
    monkeypatch.setattr(_Loop, "advance", advance)
    train(pipeline, tmp_path / "cut", resume=True)
    for name in ("metrics.jsonl", "checkpoints/best.pt", "checkpoints/step-0000006.pt"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    with pytest.raises(RunError, match="is not empty; go on with --resume"):
        train(pipeline, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="holds a run of another pipeline; seed is 0 there and 1 here"):
        train(read(write(SMALL), ["seed=1"]), tmp_path / "cut", resume=True)
    last = tmp_path / "cut" / "checkpoints" / "step-0000006.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        train(pipeline, tmp_path / "cut", resume=True)
