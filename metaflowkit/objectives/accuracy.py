"""The share of examples whose largest score is their label's."""

from torch import Tensor


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Accuracy in 0..1 of logits [..., n, N] for labels [..., n], over the last axis."""
    return (logits.argmax(-1) == y).to(logits.dtype).mean(-1)
