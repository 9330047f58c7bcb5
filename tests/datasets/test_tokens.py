"""Tokens: repeatable numbers for words, one for each place, and nothing behind the end."""

from __future__ import annotations

import torch

from metaflowkit.datasets.tokens import pieces, tokens

GOLDEN = [658, 1084, 6398]  # of "book", "a" and "flight"


def test_words_and_punctuation() -> None:
    assert pieces("Book me a FLIGHT to St. John's, please!") == ["book", "me", "a", "flight", "to", "st", ".", "john's", ",", "please", "!"]


def test_the_same_word_has_the_same_number_everywhere_and_long_texts_are_cut() -> None:
    x = tokens(["to be or not to be", "be", ""], 1000, 5)
    assert x.shape == (3, 5)
    assert x.dtype == torch.int64
    assert x[0, 0] == x[0, 4]
    assert x[1].tolist() == [x[0, 1].item(), 0, 0, 0, 0]
    assert x[2].tolist() == [0] * 5
    assert ((x > 0) & (x < 1000)).sum() == 6


def test_numbers_do_not_change_between_machines() -> None:
    """Golden: a change would make saved weights mean other words."""
    assert tokens(["book a flight"], 8192, 3).tolist() == [GOLDEN]
