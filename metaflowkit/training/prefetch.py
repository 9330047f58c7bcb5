"""The next episodes, drawn and augmented by another process while the current step computes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from metaflowkit.composition.flow import Flow
from metaflowkit.types import Episode


class Episodes(Dataset[Any]):
    """The episodes of a flow by outer step, as a data set of torch: augmented where that is done on a CPU, as they are drawn where the device is a GPU."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def __getitem__(self, step: int) -> Episode:
        return self.flow.episode(step) if self.flow.device.type == "cpu" else self.flow.drawn(step)


def episodes(flow: Flow, first: int, last: int, ahead: int) -> Iterator[Episode]:
    """The episodes of the outer steps ``first`` to ``last`` on the device, the same as :meth:`Flow.episode` gives.

    Args:
        flow: a built pipeline.
        first, last: outer steps.
        ahead: how many episodes another process, forked from this one, has ready; 0 to draw each when it is asked for.
    """
    if not ahead or last < first:
        yield from map(flow.episode, range(first, last + 1))
        return
    loader = DataLoader(
        Episodes(flow),
        batch_size=None,
        sampler=range(first, last + 1),
        num_workers=1,
        prefetch_factor=ahead,
        collate_fn=_unchanged,
        worker_init_fn=_without_signals,
        multiprocessing_context="fork",
    )
    for step, episode in enumerate(loader, first):
        yield episode if flow.device.type == "cpu" else flow.prepared(episode, step)


def _unchanged(episode: Any) -> Any:
    return episode


def _without_signals(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; this one ends with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
