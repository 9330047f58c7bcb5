"""Training labels: permuted or gone, a self-supervised run writes the same bytes and keeps none."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.datasets.glyphs import Glyphs
from metaflowkit.reporting.train import train
from tests import small

SMALL = small.SMALL.replace("steps: 4", "steps: 3").replace("every: 2", "every: 3").replace("val_episodes: 4", "val_episodes: 4, readouts: [prototype]")


def test_permuted_training_labels_change_nothing_bit_for_bit(write, monkeypatch, tmp_path) -> None:
    load = Glyphs.load

    def permuted(self):
        splits = load(self)
        y = splits["train"].y
        return {**splits, "train": dataclasses.replace(splits["train"], y=y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))])}

    for name, tasks in (("views", {}), ("labelled", {"tasks.name": "labelled"})):
        pipeline = read(write(SMALL), [f"{k}={v}" for k, v in tasks.items()])
        weights = []
        for labels, loader in (("true", load), ("permuted", permuted)):
            monkeypatch.setattr(Glyphs, "load", loader)
            train(pipeline, tmp_path / name / labels)
            weights.append((tmp_path / name / labels / "checkpoints" / "best.pt").read_bytes())
        assert (weights[0] == weights[1]) is (name == "views")


def test_nothing_keeps_the_training_labels(write, monkeypatch) -> None:
    load, kept = Glyphs.load, []

    def watched(self):
        splits = load(self)
        kept.append(weakref.ref(splits["train"].y))
        return splits

    monkeypatch.setattr(Glyphs, "load", watched)
    flow = build(read(write(SMALL)))
    gc.collect()
    assert "train" not in flow.splits
    assert [label() for label in kept] == [None]
