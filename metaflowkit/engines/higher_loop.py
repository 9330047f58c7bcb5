"""The engine on ``higher``: task by task through its functional modules and differentiable optimiser."""

from __future__ import annotations

import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import higher
import torch
from higher.optim import DifferentiableOptimizer
from torch import Tensor

from metaflowkit.config.registry import ENGINES
from metaflowkit.engines.autodiff import Autodiff, Eager, Function, tracked
from metaflowkit.engines.base import MetaLearner, Read
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.contract import require_update
from metaflowkit.engines.inner_loop import InnerLoop
from metaflowkit.engines.safety import WITHOUT_HIGHER, exact_kernels, refuse_hooks
from metaflowkit.errors import ConfigError
from metaflowkit.models.batch_statistics import AccurateNorms
from metaflowkit.rules.base import Rule, is_native
from metaflowkit.trees import Params, State, Tree, tree_map, tree_stack
from metaflowkit.types import Adaptation, Episode, Outcome, task_count, task_of


class _Shell(torch.optim.Optimizer):
    """Carries parameters to ``higher``; it never steps itself."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params, {})


class _DifferentiableRule(DifferentiableOptimizer):  # type: ignore[misc]
    """Lets a rule take ``higher``'s differentiable steps; a parameter without gradient has the gradient zero."""

    names: list[str]
    rule: Rule
    rule_state: State
    create_graph: bool

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        (group,), (grads,) = self.param_groups, grouped_grads
        params = dict(zip(self.names, group["params"]))
        gradients = {n: torch.zeros_like(p) if g is None else g if self.create_graph else g.detach() for (n, p), g in zip(params.items(), grads)}
        updated, self.rule_state = require_update(self.rule.update(gradients, self.rule_state, params), params, self.rule)
        group["params"] = [updated[name] for name in self.names]


higher.register_optim(_Shell, _DifferentiableRule)


class _HigherStepper:
    """Steps by a functional copy of the model and its differentiable optimiser.

    Two of them serve a task: one that keeps the graph, and one without for steps outside it. Switching the first one's
    tracking off instead would turn its later steps into no-ops.
    """

    autodiff: Autodiff = Eager()

    def __init__(self, learner: MetaLearner, tracked: bool) -> None:
        self.tracked = tracked
        self.names = [name for name, _ in learner.model.named_parameters()]
        self.network = higher.patch.monkeypatch(learner.model, copy_initial_weights=False, track_higher_grads=tracked)
        fast = learner.fast(dict(learner.model.named_parameters()))
        self.fast = list(fast)
        if not fast:  # no step is taken, and torch refuses an optimiser of nothing
            return
        native: Any = learner.rule
        shell = native.over(list(fast.values())) if is_native(native) else _Shell(fast.values())
        with warnings.catch_warnings():  # of Rprop and RMSprop, whose gradients the tests compare with finite differences
            warnings.filterwarnings("ignore", "Differentiable R")
            self.optimizer = higher.get_diff_optim(shell, list(learner.model.parameters()), fmodel=self.network, track_higher_grads=tracked)
        self.first_state = self.optimizer.state[0]
        self.optimizer.names = self.fast

    def call(self, params: Params, arguments: tuple[Any, ...]) -> Any:
        # Assigned instead of passed as ``params=``, with which attention modules read stale weights.
        self.network.update_params([params[name] for name in self.names])
        try:
            with AccurateNorms():
                return self.network(*arguments)
        except TypeError as error:
            if "MonkeyPatched" not in str(error):
                raise
            raise ConfigError(
                f"inner.engine: higher cannot run this network, whose forward makes modules, such as a slice of a Sequential; {WITHOUT_HIGHER}"
            ) from error

    def step(self, params: Params, state: State, rule: Rule, loss: Function, create_graph: bool) -> tuple[Params, State]:
        with torch.enable_grad():
            if not self.tracked:
                params = {name: p.detach() for name, p in params.items()}
            params = {**params, **tracked({name: params[name] for name in self.fast})}
            value = loss(params)
            if not self.fast:
                return params, state
            if not value.requires_grad:  # the loss depends on none of them: their gradient is zero, and torch would raise
                value = value + 0 * params[self.fast[0]].sum()
        self.network.update_params([params[name] for name in self.names])
        state = (self._step_native if is_native(rule) else self._step_rule)(value, state, rule, create_graph)
        return dict(zip(self.names, self.network.fast_params)), state

    def _step_rule(self, value: Tensor, state: State, rule: Rule, create_graph: bool) -> State:
        """A step of one of this library's rules.

        Rule and state are attributes of the optimiser, since ``higher`` calls ``_update`` with the gradients alone.
        """
        self.optimizer.rule, self.optimizer.rule_state, self.optimizer.create_graph = rule, state, create_graph
        self.optimizer.step(value)
        return self.optimizer.rule_state  # type: ignore[no-any-return]

    def _step_native(self, value: Tensor, state: State, rule: Rule, create_graph: bool) -> State:
        """A step of one of ``higher``'s optimisers; its state is a mapping by the parameter's index."""
        copies = {index: {k: v.clone() if isinstance(v, Tensor) else v for k, v in values.items()} for index, values in (state or self.first_state).items()}
        self.optimizer.state = [defaultdict(dict, copies)]  # copied, since higher counts some steps in place
        self.optimizer.step(value, grad_callback=None if create_graph else lambda grads: [g if g is None else g.detach() for g in grads])
        return {index: dict(values) for index, values in self.optimizer.state[0].items()}


@ENGINES.register("higher")
class HigherEngine:
    """Task by task through ``higher``'s functional modules and differentiable optimiser, which runs this library's rules.

    Reference:
        E. Grefenstette et al., Generalized Inner Loop Meta-Learning, 2019.
    """

    takes_native = True
    calls_hooks = False

    def __init__(self) -> None:
        self.description = "higher, task by task"
        self.batches, self.workers = False, 1

    def outcome(self, learner: MetaLearner, episode: Episode) -> Outcome:
        """The objective's value, metrics and meta-gradients, task after task."""
        refuse_hooks(learner.model, forward=True)
        total: Params = {}
        values, metrics = [], []
        tasks = task_count(episode)
        with exact_kernels(learner.model):
            for t in range(tasks):
                task = task_of(episode, t)
                gradients, value, task_metrics = _loop(learner, task.support, task).outcome(learner.meta())
                total = {name: total[name] + g if total else g for name, g in gradients.items()}
                values.append(value)
                metrics.append(task_metrics)
        means = {key: torch.stack([m[key] for m in metrics]).mean() for key in metrics[0]}
        return Outcome(torch.stack(values).mean(), means, {name: g / tasks for name, g in total.items()})

    def adapt(self, learner: MetaLearner, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """Adapt task after task."""
        refuse_hooks(learner.model, forward=True)
        results = []
        with exact_kernels(learner.model):
            for t in range(task_count(episode)):
                loop = _loop(learner, tree_map(lambda x, t=t: x[t], support), task_of(episode, t))  # type: ignore[misc]
                results.append(tree_map(torch.Tensor.detach, loop.adapt(learner.meta(), read)))
        return Adaptation(*tree_stack(results))


def _loop(learner: MetaLearner, support: Tree, task: Episode) -> InnerLoop:
    learner = dataclasses.replace(learner)  # a copy without cached parameters, since the model's may have been replaced
    return InnerLoop(learner, _HigherStepper(learner, tracked=True), _HigherStepper(learner, tracked=False), TaskBuffers(learner.model), support, task)
