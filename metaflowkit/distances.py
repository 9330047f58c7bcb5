"""Prototypes, similarities and the contrast of views, written so that they can be differentiated twice everywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaflowkit.config.schema import Similarity

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


def contrast(features: Tensor, y: Tensor, temperature: float, same_class: float = 0.0) -> Tensor:
    """The contrastive loss of rows whose labels are equal: mean_i -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i.z_a / t)_p.

    With two rows of each label it is the normalised temperature-scaled cross-entropy.

    Args:
        features: [n, D]; z are these rows scaled to length one.
        y: labels, int64 [n], each of two rows at least.
        temperature: t.
        same_class: q, the share of the rows with another label that are of the same true class nevertheless. With q > 0 the sum of exp(z_i.z_a / t)
            over the m rows a with another label is replaced by m max((their mean - q mean over P(i)) / (1 - q), exp(-1 / t)), an estimate of the sum over
            rows of other classes.

    Returns:
        A scalar.

    Reference:
        C.-Y. Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, equation 8.
    """
    z = unit(features)
    diagonal = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive = (y[:, None] == y) & ~diagonal
    scores = (z @ z.T / temperature).masked_fill(diagonal, -torch.inf)
    if same_class == 0:
        total = scores.logsumexp(1, keepdim=True)
    else:
        weights = (scores - 1 / temperature).exp()  # scores are at most 1 / t
        own, own_count = torch.where(positive, weights, 0.0).sum(1), positive.sum(1)
        others, count = weights.sum(1) - own, len(y) - 1 - own_count
        mean = (others / count.clamp(min=1) - same_class * own / own_count) / (1 - same_class)
        total = (own + count * mean.clamp(min=math.exp(-2 / temperature))).log()[:, None] + 1 / temperature
    return -(torch.where(positive, scores - total, 0.0).sum(1) / positive.sum(1)).mean()


def default_temperature(metric: Similarity, temperature: float | None) -> float:
    """The temperature that is given, or the metric's own where it is None."""
    return temperature if temperature is not None else {"cosine": 0.1, "euclidean": 1.0, "semi_normalised": 1.0}[metric]


def similarity(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Similarity of every row of ``a`` [n, D] with every row of ``b`` [m, D], as [n, m].

    Args:
        a: rows.
        b: rows, such as prototypes.
        metric: ``cosine``; ``euclidean`` for minus the squared distance (written out: ``cdist`` has no double
            backward in every supported torch); ``semi_normalised`` for the product of a row of ``a`` with a row of ``b`` of length one.

    Reference:
        ``semi_normalised``: H.-J. Ye, L. Han, D.-C. Zhan, Revisiting Unsupervised Meta-Learning via the Characteristics of Few-Shot Tasks,
        TPAMI 2022, section 4.2.
    """
    if metric == "cosine":
        return unit(a) @ unit(b).T
    if metric == "semi_normalised":
        return a @ unit(b).T
    return -(a.square().sum(-1)[:, None] - 2 * a @ b.T + b.square().sum(-1))
