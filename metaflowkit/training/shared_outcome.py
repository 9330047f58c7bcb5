"""The meta-gradient of an outer step, whose tasks are shared out among the processes of a run."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow
from metaflowkit.engines.base import MetaLearner
from metaflowkit.trees import tree_map
from metaflowkit.types import Episode, Outcome, task_count


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
    tasks = task_count(episode)
    own = world.share(tasks)
    outcomes = [learner.outcome(_tasks(episode, share)) for share in ([range(t, t + 1) for t in own] if ordered else [own])]
    if ordered:
        rows = world.interleaved([_packed(outcome, 1, flag).cpu() for outcome in outcomes])
        total = functools.reduce(torch.add, rows).to(outcomes[0].value.device)
    else:
        total = world.add(_packed(outcomes[0], len(own), flag))
    return _unpacked(total[:-1] / tasks, outcomes[0]), bool(total[-1] > 0)


def _tasks(episode: Episode, chosen: range) -> Episode:
    """Some tasks of a batch."""
    support, query = tree_map(lambda x: x[chosen.start : chosen.stop : chosen.step], (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def _packed(outcome: Outcome, count: int, flag: bool) -> Tensor:
    """An outcome times its number of tasks as one vector, with the flag at its end."""
    parts = [outcome.value, *outcome.metrics.values(), *outcome.gradients.values()]
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    device = next(iter(outcome.gradients.values()), outcome.value).device
    flat = torch.cat([part.detach().to(device, dtype).flatten() for part in parts]) * count
    return torch.cat([flat, torch.full((1,), float(flag), dtype=dtype, device=device)])


def _unpacked(flat: Tensor, form: Outcome) -> Outcome:
    """The outcome that a vector holds, in the form of another one."""
    parts = [form.value, *form.metrics.values(), *form.gradients.values()]
    values = [piece.reshape(part.shape).to(part.device, part.dtype) for piece, part in zip(torch.split(flat, [part.numel() for part in parts]), parts)]
    metrics = dict(zip(form.metrics, values[1:]))
    return Outcome(values[0], metrics, dict(zip(form.gradients, values[1 + len(metrics) :])))
