"""From texts to tokens: words and punctuation, numbered by a hash, so that unseen words are numbered too."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

PIECE = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")


def pieces(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case.

    Example:
        >>> pieces("What's my PIN?")
        ["what's", 'my', 'pin', '?']
    """
    return PIECE.findall(text.lower())


def tokens(texts: Sequence[str], vocabulary: int, length: int) -> Tensor:
    """The texts as int64 [n, length], each piece hashed to 1..vocabulary-1, padded with 0; longer texts are cut.

    Reference:
        K. Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009.
    """
    x = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in zip(x, texts):
        numbers = [1 + zlib.crc32(piece.encode()) % (vocabulary - 1) for piece in pieces(text)[:length]]
        row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return x
