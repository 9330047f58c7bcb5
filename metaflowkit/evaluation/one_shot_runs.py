"""Accuracy on one-shot classification runs that are given as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.choice import Choice
from metaflowkit.datasets.one_shot_runs import OneShotRun
from metaflowkit.evaluation.base import Shown
from metaflowkit.evaluation.episodes import accuracies, chosen_readouts, normalising
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score
from metaflowkit.seeding import seed_for
from metaflowkit.types import Episode, Labelled

SPLIT = "one-shot runs"


def evaluate_one_shot_runs(flow: FewShotFlow, runs: Sequence[OneShotRun], readouts: Iterable[str | Choice] = ("prototype",)) -> list[Score]:
    """Learn from the training images of each run and classify its test images.

    Args:
        flow: with the weights to measure.
        runs: with as many classes and test images each.
        readouts: see :func:`metaflowkit.evaluation.episodes.evaluate`.

    Returns:
        One score per readout and statistics (``evaluate.statistics``); the values of ``each`` are the accuracies of the runs, over which the interval is taken.
    """
    chosen = chosen_readouts(readouts, flow.pipeline.plugins)
    way = len(runs[0].training)
    query = max(1, len(runs[0].test) // way)
    scores = []
    for statistics in flow.pipeline.evaluate.statistics_in_turn():
        with normalising(flow, statistics):
            measured = accuracies(flow, chosen, lambda i: Shown(flow, _episode(flow, runs[i], i), f"evaluate/{SPLIT}", i), len(runs))
        scores += [Score.of(SPLIT, FewShot(way, 1, query, name, statistics), ACCURACY, values, "runs") for name, values in measured.items()]
    return scores


def _episode(flow: FewShotFlow, run: OneShotRun, index: int) -> Episode:
    """A run as a batch of one task."""
    way, labels = len(run.training), run.labels.to(flow.device)
    support = Labelled(flow.inputs(run.training)[None], torch.arange(way, device=flow.device)[None])
    return Episode(support, Labelled(flow.inputs(run.test)[None], labels[None]), way, seed_for(flow.pipeline.evaluate.seed, f"inner/{SPLIT}", index))
