"""Views of texts, held against their definitions on many texts: what is left out, what is kept, in which order."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.augment.levels import level_operations
from metaflowkit.augment.stage import Stage
from metaflowkit.augment.tokens import DropSpan, DropTokens, ShuffleTokens
from metaflowkit.config.choice import Choice

LENGTHS = [1, 2, 5, 12] * 500
X = torch.tensor([list(range(1, n + 1)) + [0] * (12 - n) for n in LENGTHS])  # token i stands at place i - 1


def texts(x: torch.Tensor) -> list[list[int]]:
    """The tokens of each text; behind the first 0 only 0 may stand."""
    augmented = []
    for row in x.tolist():
        length = row.index(0) if 0 in row else len(row)
        assert not any(row[length:])
        augmented.append(row[:length])
    return augmented


def test_dropped_tokens_are_a_share_and_the_rest_keeps_its_order() -> None:
    torch.manual_seed(0)
    views = texts(DropTokens(0.3)(X))
    assert all(view == sorted(set(view)) and set(view) <= set(range(1, n + 1)) and view for view, n in zip(views, LENGTHS))
    long = [len(view) for view, n in zip(views, LENGTHS) if n == 12]
    assert sum(long) / len(long) == pytest.approx(12 * 0.7, rel=0.03)
    assert texts(DropTokens(0.0)(X)) == texts(X)
    assert all(len(view) == 1 for view in texts(DropTokens(1.0)(X)))


def test_a_dropped_span_is_one_row_of_the_share() -> None:
    torch.manual_seed(0)
    starts = set()
    for view, n in zip(texts(DropSpan(0.4)(X)), LENGTHS):
        missing = sorted(set(range(1, n + 1)) - set(view))
        assert len(missing) == min(int(0.4 * n), n - 1)
        assert missing == list(range(missing[0], missing[0] + len(missing))) if missing else True
        assert view == sorted(view)
        if n == 12:
            starts.add(missing[0])
    assert starts == set(range(1, 10))  # four of twelve can begin at nine places


def test_shuffled_tokens_stay_near_their_place() -> None:
    torch.manual_seed(0)
    views = texts(ShuffleTokens(3)(X))
    assert all(sorted(view) == list(range(1, n + 1)) for view, n in zip(views, LENGTHS))
    away = [abs(token - 1 - place) for view in views for place, token in enumerate(view)]
    assert 0 < max(away) <= 3
    assert sum(view != sorted(view) for view in views) > 300
    assert texts(ShuffleTokens(1)(X)) == texts(X)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_level_is_repeatable_and_leaves_shape_and_padding(level) -> None:
    stage = Stage([Choice(node["name"], {k: v for k, v in node.items() if k != "name"}) for node in level_operations(level, "tokens")], 0, X[:2])
    view = stage(X[None], "support", "train", 1)
    assert view.shape == (1, *X.shape)
    assert view.dtype == torch.int64
    assert torch.equal(view, stage(X[None], "support", "train", 1))
    assert not torch.equal(view, stage(X[None], "support", "train", 2))
    assert all(texts(view[0]))
