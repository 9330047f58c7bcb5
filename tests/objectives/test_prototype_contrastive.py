"""ProtoCLR against cross-entropy of distances that torch measures, and against the head of prototypes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metaflowkit.criteria import Classification
from metaflowkit.objectives.prototype_contrastive import PrototypeContrastive
from metaflowkit.types import Adapted, Episode, Labelled, Outputs

G = torch.Generator().manual_seed(0)
SUPPORT = Labelled(torch.randn(6, 5, generator=G, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2]))
QUERY = Labelled(torch.randn(9, 5, generator=G, dtype=torch.float64), torch.arange(3).repeat_interleave(3))
WEIGHT = torch.randn(5, 4, generator=G, dtype=torch.float64)


@pytest.mark.parametrize(("metric", "temperature"), [("euclidean", None), ("cosine", 0.2), ("semi_normalised", None)])
def test_value_and_gradient(metric, temperature) -> None:
    weight = WEIGHT.clone().requires_grad_()
    sets = []

    def call(params, x):
        sets.append(len(x))
        return Outputs(x @ params["w"], x @ params["w"])

    adapted = Adapted({"w": weight}, {}, call, None, None, lambda p, draw: QUERY, Classification(), None)  # type: ignore[arg-type]
    value, metrics = PrototypeContrastive(metric, temperature)(adapted, Episode(SUPPORT, QUERY, 3))
    assert sets == [15]  # one set, so that normalisation sees all views

    w = WEIGHT.clone().requires_grad_()
    centres = torch.stack([(SUPPORT.x @ w)[SUPPORT.y == k].mean(0) for k in range(3)])
    z = QUERY.x @ w
    scores = {
        "euclidean": -torch.cdist(z, centres).square(),
        "cosine": F.cosine_similarity(z[:, None], centres[None], dim=2) / 0.2,
        "semi_normalised": z @ F.normalize(centres, dim=1).T,
    }[metric]
    expected = F.cross_entropy(scores, QUERY.y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, weight)[0], torch.autograd.grad(expected, w)[0])
    assert metrics["accuracy"].item() == pytest.approx((scores.argmax(1) == QUERY.y).double().mean().item())
