"""conv4 against the usual order of its layers, written out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from metaflowkit.engines.kernels import FastKernels
from metaflowkit.models.backbones.conv4 import Conv4


@pytest.mark.parametrize("kernels", [nullcontext, FastKernels])
def test_pooling_before_relu_changes_nothing(kernels) -> None:
    torch.manual_seed(0)
    model = Conv4((1, 28, 28), width=5)
    x = torch.rand(4, 1, 28, 28)
    expected = x
    for block in model.blocks:
        expected = F.max_pool2d(F.relu(block.norm(block.conv(expected))), 2)
    with kernels():
        torch.testing.assert_close(model(x), expected.flatten(1))
    assert model.features == 5
    assert sum(p.numel() for p in model.parameters()) == 9 * 5 + 3 * 9 * 5 * 5 + 4 * 2 * 5


def test_biases_stay_where_the_norm_does_not_take_them_away() -> None:
    assert [block.conv.bias is None for norm in ("batch", "group") for block in Conv4((1, 16, 16), width=8, norm=norm).blocks] == [True] * 4 + [False] * 4
