"""resnet18 against torchvision's own network."""

from __future__ import annotations

import torch
import torchvision

from metaflowkit.models.backbones.resnet18 import ResNet18


def test_torchvisions_blocks_behind_a_stem_for_small_images() -> None:
    model = ResNet18((3, 32, 32))
    ours = {n: p.shape for n, p in model.net.named_parameters() if not n.startswith(("conv1", "fc"))}
    theirs = {n: p.shape for n, p in torchvision.models.resnet18(weights=None).named_parameters() if not n.startswith(("conv1", "fc"))}
    assert ours == theirs
    assert model.net.conv1.kernel_size == (3, 3)
    assert model.net.conv1.stride == (1, 1)
    assert not any(n.startswith("net.fc") for n, _ in model.named_parameters())
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 512)
