"""Prototypes, similarities and the contrast of views, written so that they can be differentiated twice everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def membership(y: Tensor, way: int) -> Tensor:
    """Whether row i belongs to class k, bool [n, N]; unlike ``one_hot`` it also works under nested vmap and grad."""
    return y[:, None] == torch.arange(way, device=y.device)


def prototypes(features: Tensor, y: Tensor, way: int) -> Tensor:
    """Mean embedding of each class.

    Args:
        features: [n, D].
        y: class of each row, int64 [n]; every class 0..way-1 occurs.
        way: number of classes N.

    Returns:
        [N, D].
    """
    member = membership(y, way).to(features.dtype)
    return member.T @ features / member.sum(0)[:, None]


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length one; a zero row stays zero, with finite derivatives (the floor is under the root)."""
    return x / (x.square().sum(-1, keepdim=True) + EPS).sqrt()


def contrast(features: Tensor, y: Tensor, temperature: float) -> Tensor:
    """The contrastive loss of rows whose labels are equal: mean_i -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i.z_a / t)_p.

    With two rows of each label it is the normalised temperature-scaled cross-entropy.

    Args:
        features: [n, D]; z are these rows scaled to length one.
        y: labels, int64 [n], each of two rows at least.
        temperature: t.

    Returns:
        A scalar.
    """
    z = unit(features)
    diagonal = torch.eye(len(y), dtype=torch.bool, device=y.device)
    scores = (z @ z.T / temperature).masked_fill(diagonal, -torch.inf)
    log_share = scores - scores.logsumexp(1, keepdim=True)
    positive = (y[:, None] == y) & ~diagonal
    return -(torch.where(positive, log_share, 0.0).sum(1) / positive.sum(1)).mean()


def similarity(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Similarity of every row of ``a`` [n, D] with every row of ``b`` [m, D], as [n, m].

    Args:
        a: rows.
        b: rows.
        metric: ``cosine``, or ``euclidean`` for minus the squared distance (written out: ``cdist`` has no double
            backward in every supported torch).
    """
    if metric == "cosine":
        return unit(a) @ unit(b).T
    return -(a.square().sum(-1)[:, None] - 2 * a @ b.T + b.square().sum(-1))
