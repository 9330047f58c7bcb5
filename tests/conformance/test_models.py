"""Every backbone and head: shapes, seeds, no hidden statistics, and gradients that reach every parameter."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.registry import BACKBONES, HEADS
from metaflowkit.models.model import Model
from metaflowkit.types import Labelled

FOREIGN = {"torchvision": {"architecture": "mobilenet_v3_small"}, "timm": {"architecture": "mobilenetv3_small_050"}}
SMALL = {"conv4": {"width": 3}, "resnet12": {"width": 2}, "mlp": {"widths": [6, 4]}, "resnet18": {}, **FOREIGN}
NORMED = ["conv4", "resnet12", "resnet18", "torchvision"]


def backbone(name: str, shape=(1, 16, 16), **settings):
    torch.manual_seed(0)
    return BACKBONES.build(Choice(name, {**SMALL[name], **settings}), shape=shape)


def test_every_backbone_is_covered() -> None:
    assert set(SMALL) == set(BACKBONES.entries()) - {"text"}  # which reads no images


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 28)])
def test_features_are_as_many_as_announced(name, shape) -> None:
    model = backbone(name, shape)
    assert model(torch.rand(3, *shape)).shape == (3, model.features)


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_weights_and_no_statistics(name) -> None:
    one, two = backbone(name), backbone(name)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert {buffer for buffer, _ in one.named_buffers()} == ({"mean", "std"} if name in FOREIGN else set())


@pytest.mark.parametrize("name", NORMED)
def test_batch_norm_looks_at_the_set_and_group_norm_does_not(name) -> None:
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch, group = backbone(name, norm="batch").eval(), backbone(name, norm="group").eval()
    assert not torch.allclose(batch(x)[:2], batch(x[:2]), atol=1e-4)
    torch.testing.assert_close(group(x)[:2], group(x[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS.entries())
@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter_twice(name, head) -> None:
    body = backbone(name)
    model = Model(body, HEADS.build(Choice(head), features=body.features, way=3)).double()
    x = torch.rand(6, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    support = Labelled(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    out = model(support, torch.rand(6, 1, 16, 16, dtype=torch.float64), 3)
    loss = torch.nn.functional.cross_entropy(out.logits, support.y)
    first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    assert all(g.isfinite().all() for g in first)
    assert sum(g.abs().sum() > 0 for g in first) == len(first)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), list(model.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in second)
    assert sum(g.abs().sum() for g in second if g is not None) > 0


def test_too_small_images_are_refused() -> None:
    for name in ("conv4", "resnet12"):
        with pytest.raises(ValueError, match=f"{name} needs images of at least 16x16 pixels, got 8x8; raise dataset.image_size"):
            backbone(name, (1, 8, 8))
