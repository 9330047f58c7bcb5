"""What an embedding makes of a few test classes: where their images lie, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.distances import prototypes, similarity
from metaflowkit.evaluation.embedding import embed
from metaflowkit.reporting.figures import label
from metaflowkit.seeding import generator_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES, EXAMPLES, SHOT, DRAWS = 8, 20, 5, 100
NAME = 24  # letters of a class name in a figure


@dataclass(frozen=True)
class ShownClasses:
    """Some classes of a split and a few examples of each.

    Attributes:
        names: of the classes.
        x: examples as the model reads them [n, *shape], on the device.
        y: their classes, int64 [n].
        split: where they are from.
    """

    names: tuple[str, ...]
    x: Tensor
    y: Tensor
    split: str

    def features(self, flow: FewShotFlow) -> Tensor:
        """Their features [n, D] by the flow's current weights, as one set, on the CPU."""
        return embed(flow.model, self.x[None])[0].float().cpu()


def draw_classes(flow: FewShotFlow) -> ShownClasses | None:
    """Eight test classes (validation classes where there are no others) with up to twenty examples each, drawn by ``evaluate.seed``; None without two classes."""
    split = next((name for name in ("test", "val") if name in flow.splits and len(flow.splits[name].classes) > 1), None)
    if split is None:
        return None
    examples, generator = flow.splits[split], generator_for(flow.pipeline.evaluate.seed, "reporting/classes")
    chosen = sorted(torch.randperm(len(examples.classes), generator=generator)[:CLASSES].tolist())
    rows, labels = [], []
    for i, c in enumerate(chosen):
        of_class = torch.nonzero(examples.y == c).flatten()
        of_class = of_class[torch.randperm(len(of_class), generator=generator)[:EXAMPLES]]
        rows.append(of_class)
        labels.append(torch.full((len(of_class),), i))
    return ShownClasses(tuple(examples.classes[c] for c in chosen), flow.inputs(examples.x[torch.cat(rows)]), torch.cat(labels), split)


def projected(features: Tensor, y: Tensor) -> Tensor:
    """Features [n, D] in the two directions in which the class means differ most, [n, 2]: the principal axes of the means of unit features."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    means = prototypes(unit, y, int(y.max()) + 1)
    _, _, axes = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    points = (unit - means.mean(0)) @ axes[:2].T
    return torch.nn.functional.pad(points, (0, 2 - points.shape[1]))


def embedding_figures(classes: ShownClasses, features: dict[str, Tensor]) -> dict[str, Figure]:
    """The examples in two dimensions, a figure for each set of weights by its name."""
    return {title: _embedding_figure(classes, projected(of, classes.y), title) for title, of in features.items()}


def _embedding_figure(classes: ShownClasses, points: Tensor, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for c, name in enumerate(classes.names):
        x, y = points[classes.y == c].T
        axes.scatter(x, y, s=18, color=f"C{c}", marker="os^vD*PX"[c], label=class_label(name))
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def class_label(name: str) -> str:
    """The name of a class in a figure; of a long one the end, by which names of nested folders differ."""
    return label(name if len(name) <= NAME else f"…{name[1 - NAME :]}")


def confusion(classes: ShownClasses, features: Tensor, metric: str, seed: int) -> Tensor:
    """How often examples of class i are nearest to the mean of class j, float64 [N, N], rows adding up to 1; over a hundred draws of up to five labelled examples of each class.

    Args:
        classes: with two examples of each at least, of which one is left to be classified.
        features: of their examples [n, D].
        metric: of the head.
        seed: of the draws.
    """
    way, generator = len(classes.names), generator_for(seed, "reporting/confusion")
    counts = torch.zeros(way, way, dtype=torch.float64)
    shot = min(SHOT, int(torch.bincount(classes.y, minlength=way).min()) - 1)
    rows = [torch.nonzero(classes.y == c).flatten() for c in range(way)]
    for _ in range(DRAWS):
        orders = [of[torch.randperm(len(of), generator=generator)] for of in rows]
        support, query = torch.cat([order[:shot] for order in orders]), torch.cat([order[shot:] for order in orders])
        means = prototypes(features[support], classes.y[support], way)
        answers = similarity(features[query], means, metric).argmax(1)
        counts += torch.bincount(way * classes.y[query] + answers, minlength=way * way).view(way, way)
    return counts / counts.sum(1, keepdim=True)


def confusion_figure(names: Sequence[str], shares: Tensor) -> Figure:
    """The shares as a matrix with numbers in percent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    for i, row in enumerate(shares.tolist()):
        for j, share in enumerate(row):
            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color="white" if share > 0.5 else "black")
    texts = [class_label(name) for name in names]
    axes.set_xticks(range(len(names)), texts, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), texts, fontsize=8)
    axes.set(xlabel="answer", ylabel="class")
    return figure
