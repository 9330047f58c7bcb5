"""The engine on torch.func: the whole meta-gradient of a task is one function, batched over tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from metaflowkit.config.registry import ENGINES
from metaflowkit.config.schema import Count
from metaflowkit.engines.autodiff import Autodiff, Eager, Function, Functional
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.inner_loop import InnerLoop
from metaflowkit.engines.kernels import FastKernels
from metaflowkit.engines.parts import Parts, Rule
from metaflowkit.engines.recomputation import REFUSAL
from metaflowkit.engines.safety import TASK_BY_TASK, draws, exact_kernels, hooked, refuse_hooks
from metaflowkit.engines.task_map import TaskMap
from metaflowkit.errors import ConfigError
from metaflowkit.models.model import Model
from metaflowkit.types import Adaptation, Episode, Labelled, Outcome, Outputs, Params, State


@dataclass(frozen=True, eq=False)
class _Stepper:
    """Steps by functional calls of the model."""

    parts: Parts
    autodiff: Autodiff
    second: bool

    @property
    def network(self) -> Model:
        return self.parts.model

    def call(self, params: Params, support: Labelled, x: Tensor | None, way: int) -> Outputs:
        with FastKernels(self.second) if isinstance(self.autodiff, Eager) and not support.x.is_cuda else nullcontext():  # on a GPU cuDNN's are fast
            return functional_call(self.parts.model, params, (support, x, way))  # type: ignore[no-any-return]

    def step(self, params: Params, state: State, rule: Rule, loss: Function, create_graph: bool) -> tuple[Params, State]:
        fast = self.parts.fast(params)
        after, state = rule.update(self.autodiff.grad(lambda f: loss({**params, **f}), fast, create_graph), state, fast)
        return {**params, **after}, state


@ENGINES.register("vectorized")
class VectorizedEngine:
    """One function gives a task's value and meta-gradient; vmap runs it over the tasks of a chunk, or threads or processes run it task by task.

    The gradient is taken inside vmap and the mean over tasks after it: differentiating *through* a vmapped inner loop is
    silently wrong for batch and layer normalisation (https://github.com/pytorch/functorch/issues/534).

    Args:
        chunk: tasks per vmap call; 1 runs task by task without vmap, null all at once. More is faster on a GPU, and takes
            memory in proportion.
        workers: threads, or forked processes where they are faster, that run tasks side by side on a CPU where ``chunk`` is 1, each
            with the memory of a task; null for as many as torch has threads, 1 for one task after the other.
    """

    def __init__(self, chunk: Count | None = None, workers: Count | None = None) -> None:
        self.chunk, self.batches, self._workers, self._map = chunk, chunk != 1, workers, TaskMap()
        self.description = "vectorized, " + ("all tasks at once" if chunk is None else "task by task" if chunk == 1 else f"{chunk} tasks at a time")

    @property
    def workers(self) -> int:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        return 1 if self.batches else self._workers or torch.get_num_threads()

    def outcome(self, parts: Parts, episode: Episode) -> Outcome:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        meta = parts.meta()
        tasks = len(episode.support.x)

        def one(parts: Parts, support: Labelled, query: Labelled) -> tuple[Params, Tensor, dict[str, Tensor]]:
            return self._loop(parts, support, Episode(support, query, episode.way, episode.seed)).outcome(meta)

        total: Params = {}
        values, metrics = [], []
        for gradients, value, found in self._results(parts, one, episode.support, episode.query):
            total = {name: total[name] + g.sum(0) if total else g.sum(0) for name, g in gradients.items()}
            values.append(value)
            metrics.append(found)
        means = {key: torch.cat([m[key] for m in metrics]).mean() for key in metrics[0]}
        return Outcome(torch.cat(values).mean(), means, {name: g / tasks for name, g in total.items()})

    def adapt(self, parts: Parts, support: Labelled, episode: Episode) -> Adaptation:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        meta = parts.meta()

        def one(parts: Parts, clean: Labelled, query: Labelled, shown: Labelled) -> tuple[Params, Tensor]:
            return self._loop(parts, shown, Episode(clean, query, episode.way, episode.seed)).adapt(meta)

        found = list(self._results(parts, one, episode.support, episode.query, support))
        return Adaptation({name: torch.cat([p[name] for p, _ in found]) for name in meta}, torch.cat([logits for _, logits in found]))

    def _loop(self, parts: Parts, shown: Labelled, task: Episode) -> InnerLoop:
        parts, autodiff = replace(parts), Functional() if self.batches else Eager()  # fresh, since the model's parameters may have been replaced
        buffers = TaskBuffers(parts.model, self.batches)
        return InnerLoop(parts, _Stepper(parts, autodiff, True), _Stepper(parts, autodiff, False), buffers, shown, task)

    def _results(self, parts: Parts, function: Any, *sets: Labelled) -> Iterator[Any]:
        """The function's results chunk by chunk, as they come, with a leading axis of the tasks in a chunk."""
        refuse_hooks(parts.model, forward=False)
        with exact_kernels(parts.model):
            yield from self._batched(parts, function, *sets) if self.batches else self._task_by_task(parts, function, *sets)

    def _batched(self, parts: Parts, function: Any, *sets: Labelled) -> Iterator[Any]:
        tasks = len(sets[0].x)
        size = self.chunk or tasks
        batched = vmap(partial(function, parts), randomness="same" if draws(parts.model) else "error")
        if sets[0].x.device.type == "cpu":  # torch's sums over channels-last images are inaccurate, see metaflowkit.models.batch_statistics
            sets = tuple(Labelled(s.x.contiguous(), s.y) for s in sets)
        for i in range(0, tasks, size):
            try:
                found = batched(*(Labelled(s.x[i : i + size], s.y[i : i + size]) for s in sets))
            except RuntimeError as error:
                if not any(word in str(error) for word in ("vmap", "Batching rule", "functorch", "transform", "broadcast shape")):
                    raise
                if "_NoopSaveInputs" in str(error):  # what torch 2.11's checkpoint calls first, which vmap refuses
                    raise ConfigError(REFUSAL) from None
                raise ConfigError(f"inner.engine: this network cannot be batched over tasks ({str(error).splitlines()[0]}); {TASK_BY_TASK}") from error
            yield found

    def _task_by_task(self, parts: Parts, function: Any, *sets: Labelled) -> Iterator[Any]:
        tasks = len(sets[0].x)
        workers = min(self.workers, tasks)
        if sets[0].x.is_cuda or draws(parts.model) or hooked(parts.model):  # there is one generator for random numbers, and one state that hooks write to
            workers = 1

        def one(model: Model, t: int) -> Any:
            return _with_axis(function(replace(parts, model=model), *(Labelled(s.x[t], s.y[t]) for s in sets)))

        if workers == 1:
            return (one(parts.model, t) for t in range(tasks))
        return self._map(one, parts.model, tasks, workers, kind=(len(sets), tasks, *(s.x.shape for s in sets)))


def _with_axis(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result[None]
    if isinstance(result, dict):
        return {key: _with_axis(item) for key, item in result.items()}
    return tuple(_with_axis(item) for item in result)
