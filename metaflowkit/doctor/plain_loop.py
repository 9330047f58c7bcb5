"""The exact meta-gradient in a second, simplest form: the reference for the engines.

It shares nothing with the engines but the user's components: no inner loop, no kernels, no threads, no vmap. The model is called through
``torch.func.functional_call``, hence through ``Module.__call__`` with its hooks, and every gradient is one of ``torch.autograd.grad``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.safety import draws, exact_kernels
from metaflowkit.models.normalisation import after_steps
from metaflowkit.seeding import seed_for, seeded
from metaflowkit.trees import Call, Params, State, Tree, detached
from metaflowkit.types import Adapted, Episode, Outcome, task_count, task_of


class PlainLoop:
    """The inner loop and the objective of one task.

    Args:
        learner: what adapts; its order is ignored, and ``exact`` is used.
        task: the task.
        graph: whether the inner steps keep a graph to the meta-parameters; without, only values are computed.
    """

    def __init__(self, learner: MetaLearner, task: Episode, graph: bool) -> None:
        self.learner, self.task, self.graph = learner, task, graph
        self.buffers = {name: buffer.clone() for name, buffer in learner.model.named_buffers()}
        self.random = draws(learner.model)

    def value(self, meta: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and its metrics as functions of the meta-parameters."""
        params, state = self.adapted(meta)
        constants = {name: p.detach() for name, p in meta.items()}

        def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
            return self._step(params, state, constants, self.learner.steps, loss, False)

        def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
            for k in range(self.learner.steps, self.learner.steps + steps):
                params, state = descend(params, state, lambda p, k=k: self._inner_loss(p, constants, k))  # type: ignore[misc]
            return params, state

        def restart() -> tuple[Params, State]:
            afresh, start = PlainLoop(self.learner, self.task, graph=False), {**constants, **(self.learner.average or {})}
            return afresh.adapted(start)

        adapted = Adapted(params, state, self._outer_call, advance, descend, self._query, self.learner.criterion, restart, self._call_for_features)
        return self.learner.objective(adapted, self.task)

    def adapted(self, meta: Params) -> tuple[Params, State]:
        """Parameters and state after the inner steps."""
        params, state = meta, self.learner.rule.init(self.learner.fast(meta))
        for k in range(self.learner.steps):
            params, state = self._step(params, state, meta, k, lambda p, k=k: self._inner_loss(p, meta, k), self.graph)  # type: ignore[misc]
        return params, state

    def _step(self, params: Params, state: State, meta: Params, k: int, loss: Callable[[Params], Tensor], graph: bool) -> tuple[Params, State]:
        if not graph:
            params = {name: p.detach().requires_grad_() for name, p in params.items()}
            state = detached(state)
            meta = {name: p.detach() for name, p in meta.items()}
        with torch.enable_grad():
            fast = self.learner.fast(params)
            gradients = gradient(loss(params), fast, create_graph=graph)
        with nullcontext() if graph else torch.no_grad():
            updated, state = self.learner.rule_at(meta, k).update(gradients, state, fast)
        return {**params, **updated}, state

    def _inner_loss(self, params: Params, anchor: Params, k: int) -> Tensor:
        count = itertools.count()

        def call(*inputs: Any) -> Any:
            n = next(count)
            return self._call(params, inputs, f"inner/{n}" if n else "inner", k)

        value = self.learner.loss(call, self._sampled(call, self.task.support, k))
        if self.learner.proximal:
            distances = [(p - anchor[name]).square().sum() for name, p in self.learner.fast(params).items()]
            value = value + self.learner.proximal / 2 * torch.stack(distances).sum()
        return value

    def _outer_call(self, params: Params, *inputs: Any) -> Any:
        return self._call(params, inputs, "outer", 0)

    def _call_for_features(self, params: Params, *inputs: Any) -> Any:
        return self._call(params, inputs, "outer", 0, self.learner.feature_arguments)

    def _query(self, params: Params, draw: int) -> Tree:
        return self._sampled(partial(self._outer_call, params), self.task.query, draw)

    def _sampled(self, call: Call, batch: Tree, draw: int) -> Tree:
        with torch.no_grad():
            return batch if self.learner.sample is None else self.learner.sample(call, batch, draw)

    def _call(self, params: Params, inputs: tuple[Any, ...], purpose: str, step: int, arguments: Callable[..., tuple[Any, ...]] | None = None) -> Any:
        device = next(iter(params.values())).device
        random_state = seeded(seed_for(self.task.seed, purpose, step), device) if self.random else nullcontext()
        with random_state, after_steps(step if purpose.startswith("inner") else self.learner.steps):
            return functional_call(self.learner.model, {**params, **self.buffers}, (arguments or self.learner.arguments)(self.task, *inputs))


def gradient(value: Tensor, params: Params, create_graph: bool = False) -> Params:
    """The gradient of a scalar by name; zero where it does not depend on a parameter."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}
    gradients = torch.autograd.grad(value, list(params.values()), create_graph=create_graph, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(params.items(), gradients)}


def plain_outcome(learner: MetaLearner, episode: Episode) -> Outcome:
    """Value, metrics and exact meta-gradients of the objective, means over the tasks."""
    total: Params = {}
    values, metrics = [], []
    with exact_kernels(learner.model), torch.enable_grad():
        for t in range(task_count(episode)):
            meta = {name: p.requires_grad_() for name, p in learner.meta().items()}
            value, task_metrics = PlainLoop(learner, task_of(episode, t), graph=True).value(meta)
            gradients = gradient(value, meta)
            total = {name: total[name] + g if total else g for name, g in learner.trained(gradients).items()}
            values.append(value.detach())
            metrics.append({name: metric.detach() for name, metric in task_metrics.items()})
    means = {name: torch.stack([metric[name] for metric in metrics]).mean() for name in metrics[0]}
    return Outcome(_mean(values), means, {name: g / len(values) for name, g in total.items()})


def plain_value(learner: MetaLearner, episode: Episode) -> Tensor:
    """The objective's value alone, the mean over the tasks."""
    with exact_kernels(learner.model):
        meta = learner.meta()
        values = [PlainLoop(learner, task_of(episode, t), graph=False).value(meta)[0].detach() for t in range(task_count(episode))]
    return _mean(values)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
