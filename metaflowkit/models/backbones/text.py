"""An encoder of texts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from metaflowkit.config.registry import BACKBONES
from metaflowkit.config.schema import Natural, Width


@BACKBONES.register("text")
class TextEncoder(nn.Module):
    """Embedded tokens, residual convolutions over neighbouring ones, and a weighted mean over the text.

    h = embed(x); h <- h + relu(conv_3(h)) for each layer; features = linear(sum_i a_i h_i), where a is the softmax of a learned score of each
    token (attention), or constant (mean). Padding takes no part. Everything can be differentiated twice.

    Args:
        shape: (L,), the length of the texts.
        vocabulary: number of tokens.
        width: numbers per token.
        layers: of convolutions.
        features: numbers per text (D).
        pool: how tokens are weighted.

    Reference:
        Y. Kim, Convolutional Neural Networks for Sentence Classification, EMNLP 2014; Z. Lin et al., A Structured Self-attentive Sentence
        Embedding, ICLR 2017, with one head.
    """

    reads = "tokens"

    def __init__(
        self,
        shape: tuple[int, ...],
        vocabulary: int,
        width: Width = 64,
        layers: Natural = 1,
        features: Width = 64,
        pool: Literal["attention", "mean"] = "attention",
    ) -> None:
        super().__init__()
        if len(shape) != 1 or not vocabulary:
            raise ValueError(f"text reads tokens [L], got examples of shape {tuple(shape)}; choose a data set of texts, or another backbone")
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(layers))
        self.score = nn.Linear(width, 1) if pool == "attention" else None
        if self.score is not None:
            nn.init.zeros_(self.score.weight)  # every token has the same weight to begin with
        self.out = nn.Linear(width, features)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, D] of tokens [n, L], int64, padded with 0."""
        mask = (x != 0).to(self.out.weight.dtype)
        h = self.embed(x) * mask[..., None]
        for layer in self.layers:
            h = (h + layer(h.transpose(1, 2)).transpose(1, 2).relu()) * mask[..., None]
        scores = self.score(h)[..., 0] if self.score is not None else torch.zeros_like(mask)
        weights = (scores.masked_fill(mask == 0, -1e9)).softmax(1)
        return self.out((weights[..., None] * h).sum(1))  # type: ignore[no-any-return]
