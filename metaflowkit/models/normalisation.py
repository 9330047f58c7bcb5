"""Normalisation layers that are safe inside a differentiated inner loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A layer is called by the forward of any user's network: there is no argument by which the inner loop could pass it the number of
# steps done, or that accuracy is measured. Threads that run tasks in parallel each have their own values.
_STEPS_DONE: ContextVar[int] = ContextVar("steps_done", default=0)
_MEASURED: ContextVar[bool] = ContextVar("measured", default=False)


def build_norm(norm: str, channels: int) -> nn.Module:
    """A normalisation layer.

    Args:
        norm: ``batch`` uses the statistics of the current set, in training and evaluation alike (the transductive
            protocol of few-shot learning), and keeps none; ``per_step`` and ``frozen`` see :class:`StoredNorm`;
            ``group`` treats each image alone.
        channels: number of channels.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return StoredNorm(channels, frozen=norm == "frozen")


class StoredNorm(nn.BatchNorm2d):
    """Batch normalisation with statistics of training tasks that are part of the weights.

    ``frozen``: one mean and variance per channel, computed with the untrained weights and never changed.
    Otherwise one set for every number of inner steps done, since adaptation moves the activations; training uses the
    statistics of the current set, and measuring the stored ones, so that an image's score depends on no other query image.

    Attributes:
        means, variances: [K + 1, C] (``frozen``: [1, C]); not a number until :func:`metaflowkit.composition.calibration.calibrate` has run.
        current: whether measuring uses the statistics of the current set as well, which makes it transductive.
        records: while not None, every call appends (steps done, mean, variance) of its input and normalises by them.

    Reference:
        A. Antoniou, H. Edwards, A. Storkey, How to Train Your MAML, ICLR 2019, section 4 (BNRS). Differs from it: statistics are
        computed anew for the weights that are measured, as in Y. Wu, J. Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3.
    """

    means: Tensor
    variances: Tensor

    def __init__(self, channels: int, frozen: bool) -> None:
        super().__init__(channels, track_running_stats=False)
        self.frozen, self.current = frozen, False
        self.records: list[tuple[int, Tensor, Tensor]] | None = None
        self.set_steps(0)

    def set_steps(self, steps: int) -> None:
        """Allocate the statistics after 0 to ``steps`` inner steps."""
        empty = torch.full((1 if self.frozen else steps + 1, self.num_features), math.nan)
        self.register_buffer("means", empty)
        self.register_buffer("variances", empty.clone())

    @property
    def takes_current(self) -> bool:
        """Whether a call only normalises by the statistics of the current set, as batch normalisation does that keeps none."""
        return self.records is None and not self._takes_stored

    @property
    def _takes_stored(self) -> bool:
        return self.frozen or (_MEASURED.get() and not self.current)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [n, C, H, W]."""
        if self.records is not None:
            variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
            self.records.append((_STEPS_DONE.get(), mean, variance))
            return super().forward(x)
        if self._takes_stored:
            row = min(_STEPS_DONE.get(), len(self.means) - 1)
            return F.batch_norm(x, self.means[row], self.variances[row], self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)

    def store_records(self) -> None:
        """Compute the statistics from the records: the mean of the means; the mean of the variances plus the variance of the means."""
        records, self.records = self.records or [], None
        for row in range(len(self.means)):
            statistics = [(mean, variance) for step, mean, variance in records if self.frozen or step == row]
            means, variances = map(torch.stack, zip(*statistics))
            self.means[row] = means.mean(0)
            self.variances[row] = variances.mean(0) + means.var(0, correction=0)


def stored_norms(model: nn.Module) -> list[StoredNorm]:
    """The layers of a model that store statistics."""
    return [module for module in model.modules() if isinstance(module, StoredNorm)]


def current_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Within this context accuracy is measured with the statistics of the current set in layers that store others (but for frozen ones).

    Raises:
        ValueError: no layer stores statistics for measuring alone, so that there is nothing to choose.
    """
    norms = [norm for norm in stored_norms(model) if not norm.frozen]
    if not norms:
        raise ValueError("the network stores no statistics beside those of the current set; choose stored, or model.backbone.norm: per_step")
    return _current(norms)


@contextmanager
def _current(norms: list[StoredNorm]) -> Iterator[None]:
    try:
        for norm in norms:
            norm.current = True
        yield
    finally:
        for norm in norms:
            norm.current = False


@contextmanager
def after_steps(steps: int) -> Iterator[None]:
    """Within this context the parameters are those after ``steps`` inner steps."""
    token = _STEPS_DONE.set(steps)
    try:
        yield
    finally:
        _STEPS_DONE.reset(token)


@contextmanager
def measured() -> Iterator[None]:
    """Within this context accuracy is measured, by stored statistics where there are any."""
    token = _MEASURED.set(True)
    try:
        yield
    finally:
        _MEASURED.reset(token)
