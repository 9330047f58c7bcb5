"""The encoder of texts: padding changes nothing, weights of tokens are a softmax, and it can be differentiated twice."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.models.backbones.text import TextEncoder

X = torch.tensor([[3, 7, 2, 0, 0, 0], [5, 5, 1, 4, 0, 0]])


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("layers", [0, 2])
def test_padding_takes_no_part(pool, layers) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder((6,), 9, width=5, layers=layers, features=4, pool=pool)
    features = encoder(X)
    assert features.shape == (2, encoder.features) == (2, 4)
    longer = torch.cat([X, torch.zeros(2, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(encoder(longer), features)
    torch.testing.assert_close(encoder(X[:1]), features[:1])


def test_without_layers_the_mean_is_a_bag_of_words_and_attention_a_softmax_of_scores() -> None:
    torch.manual_seed(0)
    mean, attention = (TextEncoder((6,), 9, width=5, layers=0, features=4, pool=pool) for pool in ("mean", "attention"))
    rows = mean.embed.weight[X[0, :3]]
    torch.testing.assert_close(mean(X)[0], mean.out(rows.mean(0)))
    rows = attention.embed.weight[X[0, :3]]
    weights = attention.score(rows)[:, 0].softmax(0)
    torch.testing.assert_close(attention(X)[0], attention.out((weights[:, None] * rows).sum(0)))


def test_differentiable_twice() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder((6,), 9, width=3, layers=1, features=2).double()
    names = [name for name, _ in encoder.named_parameters()]

    def value(*parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(encoder, dict(zip(names, parameters)), (X,)).sin().sum()

    parameters = tuple(p.detach().requires_grad_() for p in encoder.parameters())
    assert torch.autograd.gradcheck(value, parameters)
    assert torch.autograd.gradgradcheck(value, parameters)


def test_an_empty_text_is_finite() -> None:
    assert TextEncoder((4,), 9)(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text reads tokens \[L\], got examples of shape \(1, 28, 28\)"):
        TextEncoder((1, 28, 28), 0)
