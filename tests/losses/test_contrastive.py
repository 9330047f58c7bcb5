"""The supervised-contrastive loss against a plain loop over anchors and positives."""

from __future__ import annotations

import math

import pytest
import torch

from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.types import Outputs


@pytest.mark.parametrize("same_class", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_against_the_loop(temperature, same_class) -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = [0, 1, 0, 1, 1, 0]
    z = [v / v.norm() for v in x]
    total = 0.0
    for i in range(6):
        own, others = ([math.exp(float(z[i] @ z[a]) / temperature) for a in range(6) if a != i and (y[a] == y[i]) is same] for same in (True, False))
        mean = (sum(others) / len(others) - same_class * sum(own) / len(own)) / (1 - same_class)
        repelled = len(others) * max(mean, math.exp(-1 / temperature))
        total += -sum(math.log(score / (sum(own) + repelled)) for score in own) / len(own)
    x.requires_grad_()
    value = Contrastive(temperature, same_class)(Outputs(x, x), torch.tensor(y))
    assert value.item() == pytest.approx(total / 6, rel=1e-9)
    assert torch.autograd.gradgradcheck(lambda x: Contrastive(temperature, same_class)(Outputs(x, x), torch.tensor(y)), (x,))


def test_the_share_of_the_own_class_is_estimated_from_the_positives() -> None:
    """Where one negative in four is of the own class, the corrected loss is on average that without these, as in the paper's proposition."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(4, 8, generator=generator, dtype=torch.float64), dim=1)
    classes = torch.arange(4).repeat_interleave(40)
    views = [centres[classes] + 0.15 * torch.randn(160, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    x, y = torch.cat(views), torch.arange(160).repeat(2)
    z, c = torch.nn.functional.normalize(x, dim=1), classes.repeat(2)
    scores = (z @ z.T / 0.5).exp()
    other = torch.where(c[:, None] != c, scores, 0.0).sum(1) / (c[:, None] != c).sum(1)
    pair = scores[torch.arange(320), torch.arange(320).roll(160)]
    expected = -(pair / (pair + 318 * other)).log().mean().item()
    plain, corrected = (Contrastive(0.5, share)(Outputs(x, x), y).item() for share in (0.0, 0.25))
    assert corrected == pytest.approx(expected, rel=0.02)
    assert abs(plain - expected) > 10 * abs(corrected - expected)
