"""Views of texts: operations on tokens [n, L], int64 with 0 behind a text's end."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import AUGMENTATIONS
from metaflowkit.config.schema import Count, Fraction


@AUGMENTATIONS.register("drop_tokens")
class DropTokens:
    """Leaves out tokens at random; the rest move together, and a text keeps at least one.

    Args:
        share: chance of each token to be left out.

    Reference:
        J. Wei, K. Zou, EDA: Easy Data Augmentation, EMNLP 2019 (random deletion).
    """

    modality = "tokens"

    def __init__(self, share: Fraction = 0.2) -> None:
        self.share = share

    def __call__(self, x: Tensor) -> Tensor:
        """Other tokens of the same shape."""
        chance = torch.rand(x.shape, device=x.device)
        kept = (chance >= self.share) & (x != 0)
        luckiest = chance.masked_fill(x == 0, -1.0).argmax(1, keepdim=True)
        return _together(x, kept.scatter(1, luckiest, True) & (x != 0))


@AUGMENTATIONS.register("drop_span")
class DropSpan:
    """Leaves out a row of neighbouring tokens at a random place; a text keeps at least one.

    Args:
        share: of a text's tokens, rounded down.

    Reference:
        Z. Wu et al., CLEAR: Contrastive Learning for Sentence Representation, arXiv 2012.15466, 2020 (span deletion).
    """

    modality = "tokens"

    def __init__(self, share: Fraction = 0.3) -> None:
        self.share = share

    def __call__(self, x: Tensor) -> Tensor:
        """Other tokens of the same shape."""
        length = (x != 0).sum(1)
        span = torch.minimum((self.share * length).long(), (length - 1).clamp_min(0))
        start = (torch.rand(len(x), device=x.device) * (length - span + 1)).long()
        place = torch.arange(x.shape[1], device=x.device)
        inside = (place >= start[:, None]) & (place < (start + span)[:, None])
        return _together(x, ~inside & (x != 0))


@AUGMENTATIONS.register("shuffle_tokens")
class ShuffleTokens:
    """Lets tokens change places with near ones.

    Args:
        distance: places by which a token moves less than.

    Reference:
        G. Lample et al., Unsupervised Machine Translation Using Monolingual Corpora Only, ICLR 2018, section 2.3 (word shuffling).
    """

    modality = "tokens"

    def __init__(self, distance: Count = 3) -> None:
        self.distance = distance

    def __call__(self, x: Tensor) -> Tensor:
        """Other tokens of the same shape."""
        place = torch.arange(x.shape[1], device=x.device) + self.distance * torch.rand(x.shape, device=x.device)
        return x.gather(1, place.masked_fill(x == 0, torch.inf).argsort(dim=1, stable=True))


def _together(x: Tensor, kept: Tensor) -> Tensor:
    """The kept tokens in their order, and 0 behind them."""
    return x.where(kept, 0).gather(1, (~kept).to(torch.uint8).argsort(dim=1, stable=True))
