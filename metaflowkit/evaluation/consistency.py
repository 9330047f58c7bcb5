"""Whether pseudo-tasks make sense: how often a view lies nearest to its own image, and to another image of its class.

A pseudo-class is all views of one image. Learning from it carries over to true classes where a view stays among the images of its class while
it can no longer be found by its pixels alone. Both are measured here before anything is trained, level by level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaflowkit.augment.levels import TABLES
from metaflowkit.augment.stage import Stage
from metaflowkit.composition.augmentation import level_choices, level_kind, operations
from metaflowkit.composition.flow import FewShotFlow, Flow
from metaflowkit.distances import similarity
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.scores import ci95
from metaflowkit.seeding import generator_for
from metaflowkit.trees import State

NONE, OWN = "none", "own"
FINDABLE = 0.1  # share of the views whose own image pixels find, below which they no longer solve a task
EACH = 10  # images of a class, where it has as many: with fewer, a neighbour of the class is too rare to tell levels apart


@dataclass(frozen=True)
class Consistency:
    """How views relate to images, in one space and for one strength of augmentation.

    Attributes:
        level: ``none`` for the images themselves, ``1`` to ``4``, or ``own`` for the pipeline's list of operations.
        space: ``pixels`` (``words`` of texts, else ``values``), ``untrained`` or ``trained`` embedding.
        own_image: share of the views whose nearest image is the one that they are of.
        own_class: share of the views of which the nearest image that they are not of has their class.
        ci95: half width of the 95 % interval of ``own_class`` over images.
        images: how many.
    """

    level: str
    space: str
    own_image: float
    own_class: float
    ci95: float
    images: int


@dataclass(frozen=True)
class Views:
    """Images of a split, and views of them.

    Attributes:
        images: as the model reads them, [n, *shape].
        y: their classes, [n].
        views: by level, [V, n, *shape].
    """

    images: Tensor
    y: Tensor
    views: dict[str, Tensor]


def draw_views(flow: Flow, split: str = "val", count: int = 500, views: int = 4) -> Views:
    """Images of a split, as many of each class, with views of them at every level.

    Args:
        flow: a built pipeline.
        split: whose classes are looked at.
        count: images at most.
        views: of each image, half of them as the support's are made and half as the query's.

    Raises:
        ConfigError: the tasks have no views.
        DataError: the split has no classes, or no class of two images.
    """
    if not isinstance(flow, FewShotFlow):
        raise ConfigError(f"consistency: the tasks {flow.pipeline.tasks.name!r} are not made of views of examples; choose a pipeline of few-shot tasks")
    if not flow.has(split):
        raise DataError(f"split {split!r}: has no classes, so it cannot be seen whether a view stays in its own; choose another split or data set")
    examples = flow.splits[split]
    rows = _balanced(examples.y, count, flow.pipeline.evaluate.seed)
    if not rows.numel():
        raise DataError(f"split {split!r}: has no class of two images, so a view has no other image of its class; choose another split")
    images = flow.inputs(examples.x[rows])
    kind = level_kind(examples)
    stages = {} if kind is None else {str(level): level_choices(level, kind) for level in TABLES[kind]}
    if flow.pipeline.augment.level is None:
        stages[OWN] = operations(flow.pipeline, examples)
    made = {level: Stage(listed, flow.pipeline.evaluate.seed, images[:2]) for level, listed in stages.items()}
    drawn = {level: torch.stack([stage(images, ("support", "query")[v % 2], "consistency", v // 2) for v in range(views)]) for level, stage in made.items()}
    return Views(images, examples.y[rows], {NONE: images[None], **drawn})


def consistency(flow: Flow, drawn: Views, weights: Sequence[tuple[str, State]] = ()) -> list[Consistency]:
    """The shares of every level, in the examples' own values and in embeddings.

    Args:
        flow: a built pipeline; it keeps the last of the weights.
        drawn: what :func:`draw_views` made.
        weights: state dicts of the model by the name of their space; none for those that the model has, ``untrained``.

    Returns:
        A row for each space and level.
    """
    size = int(max(x.max() for x in drawn.views.values())) + 1
    rows = [_row(_raw(drawn.images), level, drawn, lambda x: _values(x, size), "euclidean") for level in drawn.views]
    for name, state in weights or [("untrained", flow.model.state_dict())]:
        flow.model.load_state_dict(state)
        rows += [_row(name, level, drawn, lambda x: embed(flow.model, x[None])[0], "cosine") for level in drawn.views]
    return rows


def suggested(rows: Sequence[Consistency]) -> Consistency | None:
    """The mildest level at which pixels, or other values, find the own image of fewer than a tenth of the views; None where all find more.

    Below it a task can be solved without learning anything; beyond it views only lose what they have of their class.
    """
    levels = [row for row in rows if row.space == rows[0].space and row.level.isdecimal()]
    return next((row for row in sorted(levels, key=lambda row: row.level) if row.own_image < FINDABLE), None)


def chance(y: Tensor) -> float:
    """The share of ``own_class`` where neighbours are drawn at random."""
    counts = torch.bincount(y).double()
    return (counts * (counts - 1)).sum().item() / (len(y) * (len(y) - 1))


def _row(space: str, level: str, drawn: Views, features: Callable[[Tensor], Tensor], metric: str) -> Consistency:
    bank, n = features(drawn.images), len(drawn.images)
    own_image, own_class = [], []
    diagonal = torch.eye(n, dtype=torch.bool, device=bank.device)
    for view in drawn.views[level]:
        scores = similarity(features(view), bank, metric)
        own_image.append(scores.argmax(1).cpu() == torch.arange(n))
        others = scores.masked_fill(diagonal, -torch.inf).argmax(1).cpu()
        own_class.append(drawn.y[others] == drawn.y)
    by_image = torch.stack(own_class).double().mean(0)
    return Consistency(level, space, torch.stack(own_image).double().mean().item(), by_image.mean().item(), ci95(by_image.std().item(), n), n)


def _raw(x: Tensor) -> str:
    return "pixels" if x.dim() == 4 else "values" if x.is_floating_point() else "words"


def _values(x: Tensor, size: int) -> Tensor:
    """Pixels or other values as they are, texts as the counts of their words, of which there are fewer than ``size``."""
    if x.is_floating_point():
        return x.flatten(1)
    counts = torch.zeros(len(x), size, device=x.device).scatter_add_(1, x, torch.ones_like(x, dtype=torch.float32))
    return counts.index_fill(1, torch.tensor([0], device=x.device), 0.0)  # padding


def _balanced(y: Tensor, count: int, seed: int) -> Tensor:
    """Rows of classes with two images at least, as many of each class, at most ``count`` and ten or more of each where there are."""
    generator = generator_for(seed, "consistency")
    classes = [rows for c in range(int(y.max()) + 1 if len(y) else 0) if len(rows := torch.nonzero(y == c).flatten()) > 1]
    order = torch.randperm(len(classes), generator=generator)[: max(1, count // EACH)].tolist()
    each = max(2, count // max(1, len(order)))
    chosen = [rows[torch.randperm(len(rows), generator=generator)[:each]] for rows in (classes[i] for i in order)]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)
