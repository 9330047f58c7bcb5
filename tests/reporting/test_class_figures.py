"""Classes in two dimensions and the matrix of confusions against their definitions."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.reporting.class_figures import ShownClasses, class_label, confusion, confusion_figure, draw_classes, embedding_figures, projected
from metaflowkit.reporting.figures import label
from tests.small import SMALL


def clusters(way: int, each: int, spread: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(way).repeat_interleave(each)
    means = torch.nn.functional.normalize(torch.randn(way, 6, generator=generator), dim=1)
    return means[y] + spread * torch.randn(way * each, 6, generator=generator), y


def test_the_two_directions_hold_most_of_the_distance_between_class_means() -> None:
    features, y = clusters(5, 10, 0.1)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    means = torch.stack([unit[y == c].mean(0) for c in range(5)])
    largest = torch.linalg.eigvalsh(torch.cov(means.T, correction=0)).flip(0)[:2].sum()
    points = projected(features, y)
    shown = torch.stack([points[y == c].mean(0) for c in range(5)])
    torch.testing.assert_close(shown.var(0, correction=0).sum(), largest)
    two = projected(*clusters(2, 4, 0.1))
    assert two.shape == (8, 2)
    assert two[:, 1].abs().max() < 1e-6 or two.isfinite().all()


def test_confusion_of_classes_apart_and_of_equal_ones() -> None:
    features, y = clusters(4, 10, 1e-3)
    classes = ShownClasses(("a", "b", "c", "d"), features, y, "test")
    torch.testing.assert_close(confusion(classes, features, "cosine", 0), torch.eye(4, dtype=torch.float64))
    merged = torch.where((y >= 2)[:, None], features[y == 2][:1], features)  # d lies where c does
    merged = merged + 1e-4 * torch.randn(merged.shape, generator=torch.Generator().manual_seed(1))
    shares = confusion(classes, merged, "cosine", 0)
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=torch.float64))
    assert shares[0, 0] == shares[1, 1] == 1
    assert shares[3, 2] > 0.2
    assert shares[:2, 2:].sum() == 0


def test_with_few_examples_one_is_left_to_be_classified() -> None:
    features, y = clusters(3, 2, 1e-3)
    torch.testing.assert_close(confusion(ShownClasses(("a", "b", "c"), features, y, "val"), features, "euclidean", 0), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("splits", [("test", "val"), ("val",), ()])
def test_classes_are_drawn_from_what_is_held_out(splits) -> None:
    flow = build(pipeline_of(parse_yaml(SMALL, "small.yaml").plain()))
    kept = {name: examples for name, examples in flow.splits.items() if name in splits}
    flow = type(flow)(**{**vars(flow), "splits": kept})
    classes = draw_classes(flow)
    if not splits:
        assert classes is None
        return
    assert classes.split == splits[0]
    assert len(set(classes.names)) == len(classes.names) <= 8
    assert torch.bincount(classes.y).max() <= 20
    assert set(classes.names) <= set(kept[splits[0]].classes)
    rows = [i for i, name in enumerate(classes.names) for _ in range(int((classes.y == i).sum()))]
    assert classes.y.tolist() == rows
    assert torch.equal(draw_classes(flow).x, classes.x)


def test_names_are_letters_and_the_end_of_long_ones_stays() -> None:
    assert label("$x_1$") == r"\$x_1\$"
    assert label("_hidden") == " _hidden"
    assert label("a\x1b[31m") == r"a\x1b[31m"
    assert class_label("images_evaluation/Latin/character07").endswith("Latin/character07")
    classes = ShownClasses(("$\\frac", "_b"), *clusters(2, 4, 0.1), "test")
    (figure,) = embedding_figures(classes, {"trained": classes.x}).values()
    figure.canvas.draw()
    assert len(figure.legends[0].get_texts()) == 2
    confusion_figure(classes.names, torch.eye(2)).canvas.draw()
