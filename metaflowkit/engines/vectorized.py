"""The engine on torch.func: the whole meta-gradient of a task is one function, batched over tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metaflowkit.config.registry import ENGINES
from metaflowkit.config.schema import Count
from metaflowkit.engines.autodiff import Autodiff, Eager, Function, Functional
from metaflowkit.engines.base import MetaLearner, Read
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.contract import require_update
from metaflowkit.engines.inner_loop import InnerLoop
from metaflowkit.engines.kernels import FastKernels
from metaflowkit.engines.recomputation import REFUSAL
from metaflowkit.engines.recording import Computation, Recordings, Unrecorded
from metaflowkit.engines.safety import TASK_BY_TASK, draws, exact_kernels, hooked, refuse_hooks
from metaflowkit.engines.task_map import TaskMap
from metaflowkit.errors import ConfigError
from metaflowkit.rules.base import Rule
from metaflowkit.trees import Params, State, Tree, tensors, tree_cat, tree_map
from metaflowkit.types import Adaptation, Episode, Outcome, task_count


@dataclass(frozen=True, eq=False)
class _FunctionalStepper:
    """Steps by functional calls of the model."""

    learner: MetaLearner
    autodiff: Autodiff
    second: bool

    @property
    def network(self) -> nn.Module:
        return self.learner.model

    def call(self, params: Params, arguments: tuple[Any, ...]) -> Any:
        on_gpu = next(iter(params.values())).is_cuda  # where cuDNN's kernels are fast
        with FastKernels(self.second) if isinstance(self.autodiff, Eager) and not on_gpu else nullcontext():
            return functional_call(self.learner.model, params, arguments)

    def step(self, params: Params, state: State, rule: Rule, loss: Function, create_graph: bool) -> tuple[Params, State]:
        fast = self.learner.fast(params)
        gradients = self.autodiff.grad(lambda f: loss({**params, **f}), fast, create_graph)
        updated, state = require_update(rule.update(gradients, state, fast), fast, rule)
        return {**params, **updated}, state


@ENGINES.register("vectorized")
class VectorizedEngine:
    """One function gives a task's value and meta-gradient; vmap runs it over the tasks of a chunk, or threads or processes run it task by task.

    The gradient is taken inside vmap and the mean over tasks after it: differentiating *through* a vmapped inner loop is
    silently wrong for batch and layer normalisation (https://github.com/pytorch/functorch/issues/534).

    Args:
        chunk: tasks per vmap call; 1 runs task by task without vmap, null all at once. More is faster on a GPU, and takes
            memory in proportion.
        workers: threads, or forked processes where they are faster, that run tasks in parallel on a CPU where ``chunk`` is 1, each
            with the memory of a task; null for as many as torch has threads, 1 for one task after the other.
        graph: on a GPU record the meta-gradient as a CUDA graph in the second outer step and replay it from then on, for batches of tasks; elsewhere
            it changes nothing. Random numbers in the model, hooks, drawn examples and objectives that read the outer step cannot be recorded.
        compile: trace the operations of the meta-gradient in the second outer step and compile them by Inductor, which needs a C++ compiler and minutes. The same
            cannot be recorded. With ``graph`` a GPU records what is compiled.

    Raises:
        ValueError: ``graph`` with tasks that do not go through vmap.
    """

    takes_native = False
    calls_hooks = True

    def __init__(self, chunk: Count | None = None, workers: Count | None = None, graph: bool = False, compile: bool = False) -> None:
        setting = "compile" if compile else "graph" if graph else None
        if graph and chunk == 1:
            raise ValueError("graph records batches of tasks, got chunk 1; leave chunk out, or set graph: false")
        self._graph, self._compile = graph, compile
        self._recordings = Recordings(self._record, setting) if setting else None
        self.chunk, self.batches, self._workers, self._map = chunk, chunk != 1, workers, TaskMap()
        self.description = "vectorized, " + ("all tasks at once" if chunk is None else "task by task" if chunk == 1 else f"{chunk} tasks at a time")

    @property
    def workers(self) -> int:
        """One where tasks go through vmap, else the number of threads."""
        return 1 if self.batches else self._workers or torch.get_num_threads()

    def outcome(self, learner: MetaLearner, episode: Episode) -> Outcome:
        """The objective's value, metrics and meta-gradients, chunk by chunk."""
        meta = learner.meta()
        tasks = task_count(episode)
        if self._recordings is not None:
            episode = _recordable(learner, episode, self._recordings.setting)

        def run_task(learner: MetaLearner, support: Tree, query: Tree) -> tuple[Params, Tensor, dict[str, Tensor]]:
            return self._loop(learner, support, episode._replace(support=support, query=query)).outcome(meta)

        total: Params = {}
        values, metrics = [], []
        for gradients, value, task_metrics in self._results(learner, run_task, episode.support, episode.query, recordings=self._recordings):
            total = {name: total[name] + g.sum(0) if total else g.sum(0) for name, g in gradients.items()}
            values.append(value)
            metrics.append(task_metrics)
        means = {key: torch.cat([m[key] for m in metrics]).mean() for key in metrics[0]}
        return Outcome(torch.cat(values).mean(), means, {name: g / tasks for name, g in total.items()})

    def adapt(self, learner: MetaLearner, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """Adapt chunk by chunk."""
        meta = learner.meta()
        task_count(episode._replace(support=support))  # raises unless it is a batch of tasks

        def run_task(learner: MetaLearner, episode_support: Tree, query: Tree, support: Tree) -> tuple[Params, Tree]:
            return self._loop(learner, support, episode._replace(support=episode_support, query=query)).adapt(meta, read)

        return Adaptation(*tree_cat(list(self._results(learner, run_task, episode.support, episode.query, support))))

    def _loop(self, learner: MetaLearner, support: Tree, task: Episode) -> InnerLoop:
        learner, autodiff = (
            replace(learner),
            Functional() if self.batches else Eager(),
        )  # a copy without cached parameters, since the model's may have been replaced
        buffers = TaskBuffers(learner.model, self.batches)
        return InnerLoop(learner, _FunctionalStepper(learner, autodiff, True), _FunctionalStepper(learner, autodiff, False), buffers, support, task)

    def _results(self, learner: MetaLearner, function: Any, *sets: Tree, recordings: Recordings | None = None) -> Iterator[Any]:
        """The function's results chunk by chunk, as they come, with a leading axis of the tasks in a chunk."""
        refuse_hooks(learner.model, forward=False)
        with exact_kernels(learner.model):
            yield from (self._batched if self.batches else self._task_by_task)(learner, function, sets, recordings)

    def _batched(self, learner: MetaLearner, function: Any, sets: tuple[Tree, ...], recordings: Recordings | None) -> Iterator[Any]:
        tasks = len(tensors(sets)[0])
        size = self.chunk or tasks
        batched = vmap(partial(function, learner), randomness="same" if draws(learner.model) else "error")
        if tensors(sets)[0].device.type == "cpu":  # torch's sums over channels-last images are inaccurate, see metaflowkit.models.batch_statistics
            sets = tree_map(torch.Tensor.contiguous, sets)
        for i in range(0, tasks, size):
            try:
                inputs = tree_map(lambda x, i=i: x[i : i + size], sets)  # type: ignore[misc]
                results = self._recorded(batched, learner, inputs, recordings)(*inputs)
            except RuntimeError as error:
                if not any(word in str(error) for word in ("vmap", "Batching rule", "functorch", "transform", "broadcast shape")):
                    raise
                if "_NoopSaveInputs" in str(error):  # torch 2.11's checkpoint calls it first, and vmap refuses it
                    raise ConfigError(REFUSAL) from None
                raise ConfigError(f"inner.engine: this network cannot be batched over tasks ({str(error).splitlines()[0]}); {TASK_BY_TASK}") from error
            yield results

    def _recorded(self, computation: Computation, learner: MetaLearner, inputs: tuple[Tree, ...], recordings: Recordings | None) -> Computation:
        """The computation, or what is recorded of it."""
        if recordings is None or not (self._compile or _has_graphs(tensors(inputs)[0].device)):
            return computation
        return recordings(computation, inputs, (*_identity(learner), torch.get_num_threads()), learner)

    def _recorded_task(
        self, computation: Computation, learner: MetaLearner, sets: tuple[Tree, ...], recordings: Recordings | None, workers: int
    ) -> Computation | None:
        """What is recorded of a task's computation, for the threads that a worker has; None where nothing is."""
        if recordings is None:
            return None
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // workers))
        try:
            recorded = self._recorded(computation, learner, tree_map(lambda x: x[0], sets), recordings)
        finally:
            torch.set_num_threads(threads)
        return None if recorded is computation else recorded

    def _record(self, computation: Computation, inputs: tuple[Tree, ...]) -> Computation:
        from metaflowkit.engines.recorders import record_compiled, record_cuda_graph  # imported late: torch's tracing takes a while to import

        if self._compile:
            computation = record_compiled(computation, inputs)
        if self._graph and _has_graphs(tensors(inputs)[0].device):
            computation = record_cuda_graph(computation, inputs)
        return computation

    def _task_by_task(self, learner: MetaLearner, function: Any, sets: tuple[Tree, ...], recordings: Recordings | None) -> Iterator[Any]:
        tasks = len(tensors(sets)[0])
        workers = min(self.workers, tasks)
        if tensors(sets)[0].is_cuda or draws(learner.model) or hooked(learner.model):  # one generator for random numbers, one state that hooks write to
            workers = 1
        recorded = self._recorded_task(partial(function, learner), learner, sets, recordings, workers)

        def run_task(model: nn.Module, t: int) -> Any:
            computation = recorded or partial(function, replace(learner, model=model))
            return tree_map(lambda x: x[None], computation(*tree_map(lambda x: x[t], sets)))

        if workers == 1:
            return (run_task(learner.model, t) for t in range(tasks))
        return self._map(run_task, learner.model, tasks, workers, kind=(len(sets), tasks, *(x.shape for x in tensors(sets))))


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda"


def _identity(learner: MetaLearner) -> tuple[Any, ...]:
    """Equal for learners with the same parts and tensors in the same memory, of which a recorded meta-gradient is the same function."""
    parts = [getattr(learner, field.name) for field in fields(learner) if field.name != "average"]
    memory = [x.data_ptr() for x in [*learner.model.parameters(), *learner.model.buffers(), *(learner.average or {}).values()]]
    modes = [module.training for module in learner.model.modules()]
    return (*(part if isinstance(part, int | float | frozenset | None) else id(part) for part in parts), *memory, *modes)


def _recordable(learner: MetaLearner, episode: Episode, setting: str) -> Episode:
    """The episode without the numbers that differ from step to step.

    Args:
        setting: see :class:`Recordings`.

    Raises:
        ConfigError: the model runs code or draws random numbers that a recording would leave out.
    """
    for reason, present in {"hooks of its modules run": hooked(learner.model), "random numbers are drawn": draws(learner.model)}.items():
        if present:
            raise ConfigError(
                f"inner.engine.{setting}: {reason} in every call of the network, and a recorded meta-gradient would leave them out; set {setting}: false"
            )
    if learner.sample is not None:
        raise ConfigError(
            f"inner.engine.{setting}: examples are drawn in every inner step, and a recorded meta-gradient would keep the first ones; set {setting}: false"
        )
    seed, step = Unrecorded("the seed of the tasks", setting), Unrecorded("the outer step, which the objective reads,", setting)
    return episode._replace(seed=cast(int, seed), step=cast(int, step))
