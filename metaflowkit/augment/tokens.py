"""Views of texts: operations on tokens [n, L], int64, padded with 0."""

from __future__ import annotations

import torch
from torch import Tensor

from metaflowkit.config.registry import AUGMENTATIONS
from metaflowkit.config.schema import Count, Fraction


@AUGMENTATIONS.register("drop_tokens")
class DropTokens:
    """Deletes tokens at random and closes the gaps; a text keeps at least one.

    Args:
        share: probability with which each token is deleted.

    Reference:
        J. Wei, K. Zou, EDA: Easy Data Augmentation, EMNLP 2019 (random deletion).
    """

    modality = "tokens"

    def __init__(self, share: Fraction = 0.2) -> None:
        self.share = share

    def __call__(self, x: Tensor) -> Tensor:
        """Other tokens of the same shape."""
        chance = torch.rand(x.shape, device=x.device)
        mask = (chance >= self.share) & (x != 0)
        likeliest = chance.masked_fill(x == 0, -1.0).argmax(1, keepdim=True)  # is kept in any case
        return _compact(x, mask.scatter(1, likeliest, True) & (x != 0))


@AUGMENTATIONS.register("drop_span")
class DropSpan:
    """Deletes a span of consecutive tokens at a random position; a text keeps at least one.

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
        position = torch.arange(x.shape[1], device=x.device)
        inside = (position >= start[:, None]) & (position < (start + span)[:, None])
        return _compact(x, ~inside & (x != 0))


@AUGMENTATIONS.register("shuffle_tokens")
class ShuffleTokens:
    """Permutes tokens within a distance.

    Args:
        distance: a token moves by fewer positions than this.

    Reference:
        G. Lample et al., Unsupervised Machine Translation Using Monolingual Corpora Only, ICLR 2018, section 2.3 (word shuffling).
    """

    modality = "tokens"

    def __init__(self, distance: Count = 3) -> None:
        self.distance = distance

    def __call__(self, x: Tensor) -> Tensor:
        """Other tokens of the same shape."""
        position = torch.arange(x.shape[1], device=x.device) + self.distance * torch.rand(x.shape, device=x.device)
        return x.gather(1, position.masked_fill(x == 0, torch.inf).argsort(dim=1, stable=True))


def _compact(x: Tensor, mask: Tensor) -> Tensor:
    """The tokens under the mask in their order, then padding with 0."""
    return x.where(mask, 0).gather(1, (~mask).to(torch.uint8).argsort(dim=1, stable=True))
