"""Baselines of few-shot text classification, on the very episodes of a pipeline: TF-IDF, and without weights, to the nearest class mean.

python benchmarks/text_baselines.py pipelines/clinc150_bmssl.yaml --set dataset.root=data/clinc150
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F

from metaflowkit.composition.flow import FewShotFlow, build
from metaflowkit.config.pipeline import read
from metaflowkit.criteria import accuracy
from metaflowkit.distances import prototypes, similarity
from metaflowkit.evaluation.episodes import BATCH, shown_tasks
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score


def counts(x: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """How often each token occurs in each text, [n, vocabulary]."""
    table = torch.zeros(len(x), vocabulary)
    table.scatter_add_(1, x, (x != 0).float())
    return table


def main() -> None:
    """Print a line for each baseline, way and shot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--split", default="test", choices=["val", "test"])
    arguments = parser.parse_args()
    flow = build(read(arguments.pipeline, arguments.overrides), train=False)
    assert isinstance(flow, FewShotFlow)
    vocabulary, evaluate = flow.interface.vocabulary, flow.pipeline.evaluate
    seen = (counts(flow.splits["train"].x, vocabulary) > 0).float().sum(0)
    weights = {"words": torch.ones(vocabulary), "TF-IDF": ((1 + len(flow.splits["train"].x)) / (1 + seen)).log() + 1}  # as in scikit-learn
    for way, shot in evaluate.settings():
        tasks = shown_tasks(flow, arguments.split, way, shot, evaluate.query, evaluate.episodes)
        values: dict[str, list[torch.Tensor]] = {name: [] for name in weights}
        for i in range(math.ceil(evaluate.episodes / BATCH)):
            episode = tasks(i).episode
            for support, labels, query, targets in zip(*episode.support, *episode.query):
                for name, weight in weights.items():
                    s, q = (F.normalize(counts(x, vocabulary) * weight, dim=1) for x in (support, query))
                    values[name].append(accuracy(similarity(q, prototypes(s, labels, way), "cosine").double(), targets))
        for name, each in values.items():
            print(f"{name:<8} {Score.of(arguments.split, FewShot(way, shot, evaluate.query, 'prototype'), ACCURACY, torch.stack(each))} {way}-way {shot}-shot")


if __name__ == "__main__":
    main()
