"""mlp against matrix products written out."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.backbones.mlp import MLP


def test_layers_and_inputs_of_any_shape() -> None:
    model = MLP((2, 3), widths=[5, 4])
    x = torch.rand(7, 2, 3)
    (w1, b1, w2, b2) = model.parameters()
    expected = (x.flatten(1) @ w1.T + b1).relu() @ w2.T + b2
    embedded = model(x)
    assert torch.allclose(embedded, expected) or torch.allclose(embedded, expected.relu())
    assert model.features == 4


def test_no_layer() -> None:
    with pytest.raises(ValueError, match="mlp needs at least one layer"):
        MLP((1, 2, 2), widths=[])
