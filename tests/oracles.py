"""Independent oracles for meta-gradients: central differences, and plain functions to build learners from."""

from __future__ import annotations

import torch
from torch import nn

from metaflowkit.composition.few_shot import SupportLoss, query_scores
from metaflowkit.engines.auto import auto
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.models.model import Model
from metaflowkit.types import Episode, Labelled


class Smooth(nn.Module):
    """A small convolutional network without kinks, with BatchNorm on the current set."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, features, 3, padding=1, bias=False), nn.BatchNorm2d(features, track_running_stats=False), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten()
        )
        self.features = features * 16

    def forward(self, x):
        return self.layers(x)


def make_episode(way: int = 3, shot: int = 2, query: int = 2, tasks: int = 2, shape=(1, 8, 8), seed: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(seed)

    def examples(count: int) -> Labelled:
        y = torch.arange(way).repeat_interleave(count).expand(tasks, -1).contiguous()
        return Labelled(torch.rand(tasks, way * count, *shape, generator=generator, dtype=torch.float64), y)

    return Episode(examples(shot), examples(query), way)


def make_learner(rule, loss, objective, head, backbone=None, steps: int = 2, learned=None, engine=None, **more) -> MetaLearner:
    """``learned`` makes the learned settings from the shapes of the parameters that adapt."""
    torch.manual_seed(3)
    model = Model(backbone if backbone is not None else Smooth(), head)
    if learned is not None:
        adapts = more.get("adapts") or {name for name, _ in model.named_parameters()}
        model.rule = learned({name: p.shape for name, p in model.named_parameters() if name in adapts})
    model.double()
    return MetaLearner(model, rule, SupportLoss(loss), objective, steps, engine or auto(model, rule), arguments=Model.arguments, **more)


def scores(engine: Engine, learner: MetaLearner, episode: Episode) -> torch.Tensor:
    """Scores [T, n, N] of the query sets by adapted models."""
    return engine.adapt(learner, episode.support, episode, query_scores).read


def finite_difference(engine: Engine, learner: MetaLearner, episode: Episode, directions: int = 2, h: float = 1e-4, seed: int = 1) -> list[tuple[float, float]]:
    """(directional derivative by fourth-order central differences of the engine's value, the same from its gradients)."""
    gradients = engine.outcome(learner, episode).gradients
    generator = torch.Generator().manual_seed(seed)
    named = {n: p for n, p in learner.model.named_parameters() if n in gradients}
    start = {n: p.detach().clone() for n, p in named.items()}
    pairs = []
    for _ in range(directions):
        direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in named.items()}
        total = 0.0
        for multiple, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            with torch.no_grad():
                for n, p in named.items():
                    p.copy_(start[n] + multiple * h * direction[n])
            total += weight * engine.outcome(learner, episode).value.item()
        with torch.no_grad():
            for n, p in named.items():
                p.copy_(start[n])
        pairs.append((total / (12 * h), sum((gradients[n] * direction[n]).sum().item() for n in named)))
    return pairs


def relative(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], least: float = 0.0) -> float:
    """Largest norm of a difference relative to the whole gradient's norm, or to ``least`` where that is smaller, as at saturated losses."""
    scale = sum(x.square().sum() for x in b.values()).sqrt().clamp_min(least)
    return max(((a[n] - b[n]).norm() / scale).item() for n in b)
