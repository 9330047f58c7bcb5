"""The prototype head against loops over examples and classes."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.types import Labelled

G = torch.Generator().manual_seed(0)
S, Q, Y = torch.randn(6, 4, generator=G), torch.randn(5, 4, generator=G), torch.tensor([2, 0, 1, 0, 2, 1])


@pytest.mark.parametrize(
    ("metric", "temperature", "used"), [("cosine", None, 0.1), ("euclidean", None, 1.0), ("semi_normalised", None, 1.0), ("cosine", 0.5, 0.5)]
)
def test_scores(metric, temperature, used) -> None:
    scores = Prototype(metric, temperature)(Q, Labelled(S, Y), 3)
    for i, q in enumerate(Q):
        for k in range(3):
            c = torch.stack([s for s, y in zip(S, Y) if y == k]).mean(0)
            product = torch.dot(q, c) / c.norm()
            score = {"cosine": product / q.norm(), "euclidean": -((q - c) ** 2).sum(), "semi_normalised": product}[metric]
            assert scores[i, k].item() == pytest.approx(score.item() / used, rel=1e-5)
