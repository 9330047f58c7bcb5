"""Few-shot accuracy with 95 % confidence intervals, on fixed seeded episodes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import torch
from torch import Tensor

from metaflowkit.composition.few_shot import query_scores
from metaflowkit.composition.flow import Flow
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Readout
from metaflowkit.distances import prototypes, similarity
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.protocol import normalisation
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.objectives.accuracy import accuracy
from metaflowkit.seeding import seed_for
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import Episode, Labelled

BATCH = 20


@dataclass(frozen=True)
class Score:
    """Accuracy over episodes.

    Attributes:
        split, way, shot, query, readout: what was measured.
        episodes: how many.
        accuracy: mean, 0..1.
        ci95: half width of the 95 % interval of the mean, 1.96 s / sqrt(episodes).
        each: accuracy of every episode.
    """

    split: str
    way: int
    shot: int
    query: int
    readout: str
    episodes: int
    accuracy: float
    ci95: float
    each: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        """As a JSON object; accuracies of single episodes to six digits."""
        return {**vars(self), "each": [round(value, 6) for value in self.each]}

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} ± {100 * self.ci95:.1f} %"


@dataclass(frozen=True)
class Difference:
    """How far one accuracy lies above another that was measured on the same episodes.

    ``mean(d) ± 1.96 s(d) / sqrt(n)`` over the n differences d_i = after_i - before_i of single episodes. How hard an episode
    is cancels out of its difference, so that this interval is narrower than the two accuracies' own let one expect.

    Attributes:
        mean: mean difference, -1..1.
        ci95: half width of its 95 % interval.
    """

    mean: float
    ci95: float

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0, so that the episodes tell the two apart."""
        return abs(self.mean) > self.ci95

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ± {100 * self.ci95:.1f}"


def paired(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    """The difference of two accuracies, each given by those of the same episodes in the same order; None where they are not at hand for both."""
    if len(before) != len(after) or len(after) < 2:
        return None
    differences = [b - a for a, b in zip(before, after)]
    return Difference(statistics.fmean(differences), _ci95(statistics.stdev(differences), len(differences)))


def _ci95(deviation: float, count: int) -> float:
    """Half width of the 95 % interval of a mean over ``count`` independent values, by the normal approximation."""
    return 1.96 * deviation / math.sqrt(count)


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
    for i, episode in enumerate(_batches(flow, tasks, f"{split}/{way}w{shot}s", episodes)):
        embedded = None
        for readout in readouts:
            if readout == "adapted":
                scores = flow.learner.adapt(_shown(flow, episode, split, i), episode, query_scores).read
            else:
                embedded = embedded or tuple(embed(flow.model, examples.x) for examples in (episode.support, episode.query))
                scores = (_prototype if readout == "prototype" else _logistic)(flow, episode, *embedded)
            accuracies[readout].append(accuracy(scores.double(), episode.query.y).cpu())
    results = []
    for readout, batches in accuracies.items():
        values = torch.cat(batches)
        ci95 = _ci95(values.std().item(), len(values))
        results.append(Score(split, way, shot, query, readout, len(values), values.mean().item(), ci95, tuple(values.tolist())))
    return results


def _checked(readouts: Iterable[str]) -> list[str]:
    """The readouts, each once, all known."""
    names = list(dict.fromkeys([readouts] if isinstance(readouts, str) else readouts))
    for name in names:
        if name not in get_args(Readout):
            raise ConfigError(f"readouts: there is no {name!r}; {nearest(name, get_args(Readout))}")
    return names


def protocol(flow: Flow, readouts: Iterable[str]) -> str:
    """What a reader must know beside the figures."""
    facts = [normalisation(flow.model, flow.shape)]
    if "adapted" in readouts:
        views = evaluation_views(flow.pipeline)
        shown = f"{views} augmented views of each support image" if views else "the support images"
        facts.append(f"'adapted' takes {flow.pipeline.inner.steps} inner steps on {shown}")
    facts += dict.fromkeys(images.note for images in flow.splits.values() if images.note)
    return "; ".join([*facts, f"episodes are drawn with seed {flow.pipeline.evaluate.seed}"])


def _batches(flow: Flow, tasks: LabelledTasks, purpose: str, episodes: int) -> Iterator[Episode]:
    for i in range(math.ceil(episodes / BATCH)):
        drawn = tasks.episode(i, purpose)
        count = min(BATCH, episodes - i * BATCH)
        support, query = (Labelled(flow.images(s.x[:count]), s.y[:count].to(flow.device)) for s in (drawn.support, drawn.query))
        yield Episode(support, query, drawn.way, seed_for(tasks.seed, f"inner/{purpose}", i))


def _shown(flow: Flow, episode: Episode, split: str, index: int) -> Labelled:
    """What the inner loop adapts on: augmented copies of the support images, or the images themselves."""
    views = evaluation_views(flow.pipeline)
    if not views:
        return cast(Labelled, episode.support)
    x = episode.support.x.repeat_interleave(views, dim=1)
    return Labelled(flow.augmented(x, "support", f"evaluate/{split}", index), episode.support.y.repeat_interleave(views, dim=1))


def _prototype(flow: Flow, episode: Episode, support: Tensor, query: Tensor) -> Tensor:
    means = [prototypes(s, y, episode.way) for s, y in zip(support, episode.support.y)]
    return torch.stack([similarity(q, m, str(flow.model.head.metric)) for q, m in zip(query, means)])


def _logistic(flow: Flow, episode: Episode, support: Tensor, query: Tensor) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    scores = []
    for s, y, q in zip(support, episode.support.y, query):
        s, q = (torch.nn.functional.normalize(f, dim=-1).double().cpu() for f in (s, q))
        model = LogisticRegression(C=10.0, max_iter=1000).fit(s.numpy(), y.cpu().numpy())
        scores.append(torch.from_numpy(model.predict_log_proba(q.numpy())).to(episode.query.y.device))
    return torch.stack(scores)
