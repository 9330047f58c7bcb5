"""The meta-gradient of an outer step, whose tasks are shared out among the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow
from metaflowkit.engines.base import MetaLearner
from metaflowkit.types import Episode, Outcome, task_count, tree_map


def shared_outcome(flow: Flow, learner: MetaLearner, episode: Episode, flag: bool = False) -> tuple[Outcome, bool]:
    """Means over the tasks of an episode, of which every process computes its share: value, metrics and gradients in one exchange.

    With ``outer.reduction: ordered`` tasks are computed one by one and their results added in the order of the tasks, so that the means are the same to the
    bit for every number of processes. Otherwise every process adds up its own tasks first, which takes less memory, and computes them in parallel or in batches.

    Args:
        flow: of the run, with its W processes.
        learner: the same in every process.
        episode: the same tasks in every process, T of them; process r takes r, r + W, ...
        flag: of this process; it travels with the gradients.

    Returns:
        The means, the same bits in every process, and whether any process has raised its flag.
    """
    world, ordered = flow.world, flow.pipeline.outer.reduction == "ordered"
    if world.size == 1 and not ordered:
        return learner.outcome(episode), flag
    tasks, own = task_count(episode), world.share(task_count(episode))
    if ordered:
        rows = [_packed(learner.outcome(_tasks(episode, [t])), 1, flag) for t in own]
        form = rows[0][1]
        total = torch.zeros_like(rows[0][0])
        for row in world.interleaved([flat.cpu() for flat, _ in rows]):
            total += row.to(total.device)
    else:
        flat, form = _packed(learner.outcome(_tasks(episode, own)), len(own), flag)
        total = world.add(flat)
    return _unpacked(total[:-1] / tasks, form), bool(total[-1] > 0)


def _tasks(episode: Episode, indices: Sequence[int]) -> Episode:
    """Some tasks of a batch."""
    chosen = slice(indices[0], indices[-1] + 1, indices.step if isinstance(indices, range) else 1)
    support, query = tree_map(lambda x: x[chosen], (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def _packed(outcome: Outcome, count: int, flag: bool) -> tuple[Tensor, Outcome]:
    """An outcome times its number of tasks as one vector, with the flag at its end, and the outcome as the form to unpack by."""
    parts = [outcome.value, *outcome.metrics.values(), *outcome.gradients.values()]
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    device = next(iter(outcome.gradients.values()), outcome.value).device
    flat = torch.cat([part.detach().to(device, dtype).flatten() for part in parts]) * count
    return torch.cat([flat, torch.full((1,), float(flag), dtype=dtype, device=device)]), outcome


def _unpacked(flat: Tensor, form: Outcome) -> Outcome:
    """The outcome of a vector."""
    parts = [form.value, *form.metrics.values(), *form.gradients.values()]
    values = [piece.reshape(part.shape).to(part.dtype) for piece, part in zip(torch.split(flat, [part.numel() for part in parts]), parts)]
    metrics = dict(zip(form.metrics, values[1:]))
    return Outcome(values[0], metrics, dict(zip(form.gradients, values[1 + len(metrics) :])))
