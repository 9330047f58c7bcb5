"""Few-shot accuracy with 95 % confidence intervals, on fixed seeded episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import cast, get_args

import torch
from torch import Tensor

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.composition.flow import FewShotFlow, Flow
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Readout
from metaflowkit.criteria import accuracy
from metaflowkit.distances import prototypes, similarity
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score, joined
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.seeding import seed_for
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import Episode, Labelled

BATCH = 20


def evaluate(
    flow: Flow,
    split: str = "test",
    way: int = 5,
    shot: int = 1,
    query: int = 15,
    episodes: int = 600,
    readouts: Iterable[str] = ("prototype", "adapted"),
) -> list[Score]:
    """Adapt and classify.

    Args:
        flow: a built pipeline with the weights to measure.
        split: ``val`` or ``test``, or ``train`` where the flow holds its labels (built with ``train=False``, or for labelled tasks).
        way: classes per episode.
        shot: support images per class.
        query: query images per class.
        episodes: number of episodes; the same for every readout, drawn from ``evaluate.seed``.
        readouts: ``prototype`` (nearest class mean of the embedding), ``adapted`` (the head after K inner steps on the
            labelled support, each image shown in ``evaluate.views`` augmented copies), ``logistic`` (logistic regression
            on the frozen embedding).

    Returns:
        One score per readout.

    Raises:
        ConfigError: there is no such readout, a number is too small, or a layer lacks its statistics.
        DataError: the split has too few classes or images.
    """
    if not isinstance(flow, FewShotFlow):
        raise ConfigError("evaluate: these tasks are measured by themselves; call metaflowkit.evaluate_adaptation")
    if split not in flow.splits:
        raise DataError(f"split {split!r}: is not at hand here, only {', '.join(flow.splits)}; choose one of them")
    if not flow.splits[split].classes:
        raise DataError(
            f"split {split!r}: has no classes, so accuracy cannot be measured on it; choose another split, or another data set with --set dataset=..."
        )
    readouts = _checked(readouts)
    if any(norm.means.isnan().any() for norm in stored_norms(flow.learner.model)):
        raise ConfigError("model.backbone.norm: its statistics have not been taken yet; load the weights of a run, or call flow.calibrate(start=True)")
    for argument, value, least in (("way", way, 2), ("shot", shot, 1), ("query", query, 1), ("episodes", episodes, 2)):
        if value < least:
            raise ConfigError(f"{argument}: must be at least {least}, got {value}; raise it")
    tasks = LabelledTasks(flow.splits[split], flow.pipeline.evaluate.seed, way, shot, query, BATCH)
    accuracies: dict[str, list[Tensor]] = {readout: [] for readout in readouts}
    for i, episode in enumerate(batches(flow, tasks, f"{split}/{way}w{shot}s", episodes)):
        embedded = None
        for readout in readouts:
            if readout == "adapted":
                scores = flow.learner.adapt(_shown(flow, episode, split, i), episode, query_scores).read
            else:
                embedded = embedded or tuple(embed(flow.model, examples.x) for examples in (episode.support, episode.query))
                scores = (_prototype if readout == "prototype" else _logistic)(flow, episode, *embedded)
            accuracies[readout].append(accuracy(scores.double(), episode.query.y))
    return [Score.of(split, FewShot(way, shot, query, readout), ACCURACY, joined(batches)) for readout, batches in accuracies.items()]


def _checked(readouts: Iterable[str]) -> list[str]:
    """The readouts, each once, all known."""
    names = list(dict.fromkeys([readouts] if isinstance(readouts, str) else readouts))
    for name in names:
        if name not in get_args(Readout):
            raise ConfigError(f"readouts: there is no {name!r}; {nearest(name, get_args(Readout))}")
    return names


def batches(flow: FewShotFlow, tasks: LabelledTasks, purpose: str, episodes: int) -> Iterator[Episode]:
    """Episodes of labelled tasks as the model reads them, as many as asked for, in batches."""
    for i in range(math.ceil(episodes / BATCH)):
        drawn = tasks.episode(i, purpose)
        count = min(BATCH, episodes - i * BATCH)
        support, query = (Labelled(flow.inputs(s.x[:count]), s.y[:count].to(flow.device)) for s in (drawn.support, drawn.query))
        yield Episode(support, query, drawn.way, seed_for(tasks.seed, f"inner/{purpose}", i))


def _shown(flow: FewShotFlow, episode: Episode, split: str, index: int) -> Labelled:
    """What the inner loop adapts on: augmented copies of the support images, or the images themselves."""
    views = evaluation_views(flow.pipeline)
    if not views:
        return cast(Labelled, episode.support)
    x = episode.support.x.repeat_interleave(views, dim=1)
    return Labelled(flow.augmented(x, "support", f"evaluate/{split}", index), episode.support.y.repeat_interleave(views, dim=1))


def _prototype(flow: FewShotFlow, episode: Episode, support: Tensor, query: Tensor) -> Tensor:
    means = [prototypes(s, y, episode.way) for s, y in zip(support, episode.support.y)]
    return torch.stack([similarity(q, m, str(flow.model.head.metric)) for q, m in zip(query, means)])


def _logistic(flow: FewShotFlow, episode: Episode, support: Tensor, query: Tensor) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    scores = []
    for s, y, q in zip(support, episode.support.y, query):
        s, q = (torch.nn.functional.normalize(f, dim=-1).double().cpu() for f in (s, q))
        model = LogisticRegression(C=10.0, max_iter=1000).fit(s.numpy(), y.cpu().numpy())
        scores.append(torch.from_numpy(model.predict_log_proba(q.numpy())).to(episode.query.y.device))
    return torch.stack(scores)
