"""timm's networks as backbones."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from torch import nn

from metaflowkit.models.backbones.timm_network import TimmNetwork
from metaflowkit.models.weights import load_weights

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    ("architecture", "sized"), [("resnet18", False), ("vit_tiny_patch16_224", True), ("convnext_atto", False), ("mobilenetv3_small_050", False)]
)
def test_features_are_timms_with_its_normalisation(architecture, sized, tmp_path) -> None:
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=10, **({"img_size": 32} if sized else {})).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = TimmNetwork(SHAPE, architecture, pretrained=True)
    load_weights(backbone, tmp_path / "w.pth")
    x, settings = torch.rand(3, *SHAPE), network.pretrained_cfg
    normalised = (x - torch.tensor(settings["mean"]).view(3, 1, 1)) / torch.tensor(settings["std"]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), network.forward_head(network.forward_features(normalised), pre_logits=True), rtol=1e-4, atol=1e-5)


def test_nothing_is_fused_in_place_or_random() -> None:
    vit = TimmNetwork(SHAPE, "vit_tiny_patch16_224")
    assert not any(getattr(m, "fused_attn", False) or getattr(m, "inplace", False) for m in vit.modules())
    assert all(m.p == 0 for m in TimmNetwork(SHAPE, "resnet18").modules() if isinstance(m, nn.Dropout))


def test_stored_statistics_in_fused_norms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"norm: per_step cannot replace bn1 \(BatchNormAct2d\), which does more than normalise; choose running or batch"):
        TimmNetwork(SHAPE, "mobilenetv3_small_050", norm="per_step")


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match="architecture: timm has no network 'resnet19'; did you mean 'resnet18'"):
        TimmNetwork(SHAPE, "resnet19")


def test_without_timm(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs timm, which is not installed; pip install 'metaflowkit\[timm\]'"):
        TimmNetwork(SHAPE)
