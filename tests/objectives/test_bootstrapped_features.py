"""The distance of embeddings against torch's cosine similarity and mean squared error."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metaflowkit.criteria import Classification
from metaflowkit.objectives.bootstrapped_features import BootstrappedFeatures
from metaflowkit.types import Adapted, Episode, Labelled, Outputs

G = torch.Generator().manual_seed(0)
STUDENT, FURTHER = (torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))
QUERY = Labelled(torch.zeros(4, 1), torch.tensor([0, 1, 2, 0]))


def adapted(read) -> Adapted:
    student = {"z": STUDENT.clone().requires_grad_()}
    return Adapted(student, {}, lambda p, x: read(p["z"]), lambda p, s, n: ({"z": FURTHER}, s), None, lambda p, draw: QUERY, Classification(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_value_and_gradient(metric) -> None:
    a = adapted(lambda z: Outputs(z, z[:, :3]))
    value, metrics = BootstrappedFeatures(2, metric, grounded=False)(a, Episode(QUERY, QUERY, 3))
    z = STUDENT.clone().requires_grad_()
    expected = (2 - 2 * F.cosine_similarity(z, FURTHER)).mean() if metric == "cosine" else F.mse_loss(z, FURTHER)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v, x in ((value, a.params["z"]), (expected, z))))
    assert metrics["accuracy"].item() == (STUDENT[:, :3].argmax(1) == QUERY.y).double().mean().item()


def test_a_model_without_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective: compares embeddings, so the model must return Outputs\(features, logits\), got Tensor"):
        BootstrappedFeatures(2, grounded=False)(adapted(lambda z: z), Episode(QUERY, QUERY, 3))
