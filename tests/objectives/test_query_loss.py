"""The query loss against torch's cross-entropy on the student's scores."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.criteria import Classification
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.types import Adapted, Episode, Labelled


def test_value_and_accuracy() -> None:
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0]])
    query = Labelled(torch.zeros(3, 1), torch.tensor([0, 1, 0]))
    adapted = Adapted({}, {}, lambda params, x: scores, None, None, lambda params, draw: query, Classification(), None)  # type: ignore[arg-type]
    value, metrics = QueryLoss()(adapted, Episode(query, query, 2))
    assert value.item() == pytest.approx(torch.nn.functional.cross_entropy(scores, query.y).item())
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)
