"""The exact meta-gradient once more, written as plainly as it can be: what the engines are compared with.

It shares nothing with the engines but the user's own parts: no inner loop, no kernels, no threads, no vmap. The model is called through
``torch.func.functional_call``, hence through ``Module.__call__`` with its hooks, and every gradient is one of ``torch.autograd.grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.func import functional_call

from metaflowkit.engines.parts import Parts, task_of
from metaflowkit.engines.safety import draws, exact_kernels
from metaflowkit.models.normalisation import after_steps
from metaflowkit.seeding import seed_for, seeded
from metaflowkit.types import Adapted, Episode, Labelled, Outcome, Outputs, Params, State, detached


class PlainLoop:
    """The inner loop and the objective of one task.

    Args:
        parts: the parts of the learner; the order is taken to be exact.
        task: the task.
        graph: whether the inner steps keep a graph to the meta-parameters; without, only values are computed.
    """

    def __init__(self, parts: Parts, task: Episode, graph: bool) -> None:
        self.parts, self.task, self.graph = parts, task, graph
        self.buffers = {name: buffer.clone() for name, buffer in parts.model.named_buffers()}
        self.random = draws(parts.model)

    def value(self, meta: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and its metrics as functions of the meta-parameters."""
        params, state = meta, self.parts.rule.init(self.parts.fast(meta))
        for k in range(self.parts.steps):
            params, state = self._step(params, state, meta, k, lambda p, k=k: self._inner_loss(p, meta, k), self.graph)  # type: ignore[misc]
        constants = {name: p.detach() for name, p in meta.items()}

        def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
            return self._step(params, state, constants, self.parts.steps, loss, False)

        def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
            for k in range(self.parts.steps, self.parts.steps + steps):
                params, state = descend(params, state, lambda p, k=k: self._inner_loss(p, constants, k))  # type: ignore[misc]
            return params, state

        return self.parts.objective(Adapted(params, state, self._logits, advance, descend), self.task)

    def _step(self, params: Params, state: State, meta: Params, k: int, loss: Callable[[Params], Tensor], graph: bool) -> tuple[Params, State]:
        if not graph:
            params = {name: p.detach().requires_grad_() for name, p in params.items()}
            state = detached(state)
            meta = {name: p.detach() for name, p in meta.items()}
        with torch.enable_grad():
            fast = self.parts.fast(params)
            gradients = gradient(loss(params), fast, create_graph=graph)
        with nullcontext() if graph else torch.no_grad():
            moved, state = self.parts.rule_at(meta, k).update(gradients, state, fast)
        return {**params, **moved}, state

    def _inner_loss(self, params: Params, anchor: Params, k: int) -> Tensor:
        value = self.parts.loss(self._call(params, None, "inner", k), self.task.support.y)
        if self.parts.proximal:
            away = [(p - anchor[name]).square().sum() for name, p in self.parts.fast(params).items()]
            value = value + self.parts.proximal / 2 * torch.stack(away).sum()
        return value

    def _logits(self, params: Params, x: Tensor) -> Tensor:
        return self._call(params, x, "outer", 0).logits

    def _call(self, params: Params, x: Tensor | None, moment: str, index: int) -> Outputs:
        drawing = seeded(seed_for(self.task.seed, moment, index), self.task.support.x.device) if self.random else nullcontext()
        with drawing, after_steps(index if moment == "inner" else self.parts.steps):
            return functional_call(self.parts.model, {**params, **self.buffers}, (self.task.support, x, self.task.way))  # type: ignore[no-any-return]


def gradient(value: Tensor, params: Params, create_graph: bool = False) -> Params:
    """The gradient of a scalar by name; zero where it does not depend on a parameter."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}
    gradients = torch.autograd.grad(value, list(params.values()), create_graph=create_graph, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(params.items(), gradients)}


def plain_outcome(parts: Parts, episode: Episode) -> Outcome:
    """Value, metrics and exact meta-gradients of the objective, means over the tasks."""
    total: Params = {}
    values, metrics = [], []
    with exact_kernels(parts.model), torch.enable_grad():
        for t in range(len(episode.support.x)):
            meta = {name: p.requires_grad_() for name, p in parts.meta().items()}
            value, named = PlainLoop(parts, task_of(episode, t), graph=True).value(meta)
            gradients = gradient(value, meta)
            total = {name: total[name] + g if total else g for name, g in gradients.items() if name not in parts.frozen}
            values.append(value.detach())
            metrics.append({name: metric.detach() for name, metric in named.items()})
    means = {name: torch.stack([metric[name] for metric in metrics]).mean() for name in metrics[0]}
    return Outcome(_mean(values), means, {name: g / len(values) for name, g in total.items()})


def plain_value(parts: Parts, episode: Episode) -> Tensor:
    """The objective's value alone, the mean over the tasks."""
    with exact_kernels(parts.model):
        meta = parts.meta()
        values = [PlainLoop(parts, task_of(episode, t), graph=False).value(meta)[0].detach() for t in range(len(episode.support.x))]
    return _mean(values)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def single(episode: Episode, tasks: int = 1) -> Episode:
    """The first tasks of an episode."""
    support, query = (Labelled(s.x[:tasks], s.y[:tasks]) for s in (episode.support, episode.query))
    return Episode(support, query, episode.way, episode.seed)
