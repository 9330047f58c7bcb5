"""conv4 against the usual order of its layers, written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from metaflowkit.models.conv4 import Conv4


def test_pooling_before_relu_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Conv4((1, 28, 28), width=5)
    x = torch.rand(4, 1, 28, 28)
    expected = x
    for conv, norm, _, _ in zip(*[iter(model.layers)] * 4):
        expected = F.max_pool2d(F.relu(norm(conv(expected))), 2)
    torch.testing.assert_close(model(x), expected.flatten(1))
    assert model.features == 5
    assert sum(p.numel() for p in model.parameters()) == (9 + 1) * 5 + 3 * (9 * 5 + 1) * 5 + 4 * 2 * 5
