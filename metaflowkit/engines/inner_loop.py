"""The inner loop of one task and its outer gradient, in every order: the part that the engines share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metaflowkit.engines.autodiff import Autodiff, Function
from metaflowkit.engines.base import MetaLearner, Read
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.contract import component_name, require_gradient, require_graph, require_objective, require_scalar, require_state
from metaflowkit.engines.recomputation import no_recomputation
from metaflowkit.engines.safety import draws, without_dropout
from metaflowkit.errors import BrokenContract
from metaflowkit.models.normalisation import after_steps, measured
from metaflowkit.orders.base import Result
from metaflowkit.rules.base import Rule
from metaflowkit.seeding import seed_for, seeded
from metaflowkit.trees import Call, Params, State, Tree, detached, refilled, tensors_of, tree_map
from metaflowkit.types import Adapted, Episode

Differentiated = Callable[[int, int], bool]
Arguments = Callable[..., tuple[Any, ...]]


class Stepper(Protocol):
    """How an engine calls the model and takes a step.

    ``params`` are always all parameters by name; a step moves those that adapt.
    """

    @property
    def autodiff(self) -> Autodiff:
        """How gradients are taken here."""

    @property
    def network(self) -> nn.Module:
        """The module that is called; its training mode counts."""

    def call(self, params: Params, arguments: tuple[Any, ...]) -> Any:
        """The model with these parameters."""

    def step(self, params: Params, state: State, rule: Rule, loss: Function, create_graph: bool) -> tuple[Params, State]:
        """One step of the rule on ``loss(params)``; without ``create_graph`` the gradient is a constant."""


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop of one task.

    Attributes:
        learner: what adapts.
        differentiable: takes the steps that the outer gradient is propagated through.
        detached: takes the other steps.
        buffers: the model's buffers as the task has them.
        support: what is learned from.
        task: the task.
    """

    learner: MetaLearner
    differentiable: Stepper
    detached: Stepper
    buffers: TaskBuffers
    support: Tree
    task: Episode

    def outcome(self, meta: Params) -> Result:
        """Meta-gradients of the objective for what is trained, its value and metrics, in the learner's order."""
        return require_gradient(self.learner.order.gradient(self, meta), self.trained(meta), self.learner.order)

    @property
    def proximal(self) -> float:
        """lambda of the inner loss's term lambda / 2 |w - theta|^2."""
        return self.learner.proximal

    def trained(self, params: Params) -> Params:
        """Those that the outer loop moves."""
        return self.learner.trained(params)

    def fast(self, params: Params) -> Params:
        """Those that the inner loop moves."""
        return self.learner.fast(params)

    def unrolled(self, meta: Params, differentiated: Differentiated) -> Result:
        """The objective's gradient through the inner steps."""
        if self.learner.remat:
            return self._rematerialised(meta, differentiated)

        def value(trained: Params) -> tuple[Tensor, dict[str, Tensor]]:
            start = {**meta, **trained}
            return self._differentiable_value(start, *self._run(self.differentiable, start, differentiated))

        return self.differentiable.autodiff.value_and_grad(value, self.trained(meta))

    @torch.no_grad()
    def adapted(self, meta: Params) -> tuple[Params, State]:
        """Parameters and state after the inner steps."""
        return self._run(self.detached, meta)

    @torch.no_grad()
    def objective(self, meta: Params, params: Params, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """Value and metrics of the objective at adapted parameters."""
        return self._value(meta, params, state)

    def objective_gradient(self, meta: Params, params: Params, state: State) -> Result:
        """The objective's gradient at the adapted parameters; buffers stay as adaptation left them."""
        buffers = self.buffers.snapshot()
        result = self.differentiable.autodiff.value_and_grad(lambda p: self._differentiable_value(meta, {**params, **p}, state), self._moving(params))
        self.buffers.restore(buffers)
        return result

    def curvature(self, params: Params, moved: list[str], vector: list[Tensor]) -> list[Tensor]:
        """The product of a vector with second derivatives of the inner loss; buffers stay as adaptation left them."""
        fast, autodiff, buffers = list(self.fast(params)), self.differentiable.autodiff, self.buffers.snapshot()

        def gradient(*inputs: Tensor) -> list[Tensor]:
            point = {**params, **dict(zip(moved, inputs))}
            gradients = autodiff.grad(
                lambda f: self._loss(self.differentiable, {**point, **f}, None, self.learner.steps), {n: point[n] for n in fast}, create_graph=True
            )
            return [gradients[name] for name in fast]

        product = autodiff.vjp(gradient, [params[name] for name in moved], vector)
        self.buffers.restore(buffers)
        return product

    @torch.no_grad()
    def adapt(self, meta: Params, read: Read | None) -> tuple[Params, Tree]:
        """Adapted parameters, and what is read from the adapted model, without graph."""
        with measured():
            params, _ = self._run(self.detached, meta)
        if read is None:
            return params, ()

        def call(*inputs: Any) -> Any:
            with self.buffers.within(self.detached.network):
                return self.detached.call(params, self.learner.arguments(self.task, *inputs))

        with measured(), after_steps(self.learner.steps), without_dropout(self.detached.network):
            return params, read(call, self.task)

    @cached_property
    def random(self) -> bool:
        """Whether the model draws random numbers."""
        return draws(self.learner.model)

    def _call(
        self, stepper: Stepper, params: Params, task: Episode, inputs: tuple[Any, ...], purpose: str, step: int, arguments: Arguments | None = None
    ) -> Any:
        """The model; its random numbers are the same in every engine, and when a step is computed again.

        Args:
            stepper: calls it.
            params: with these parameters.
            task: from which its arguments are made.
            inputs: it is called with.
            purpose: of the call; with ``step`` it seeds the random numbers.
            step: of the inner loop.
            arguments: of the model, in place of the learner's ``arguments``.
        """
        random_state = seeded(seed_for(self.task.seed, purpose, step), next(iter(params.values())).device) if self.random else nullcontext()
        checkpoint_guard = no_recomputation() if torch.is_grad_enabled() else nullcontext()
        with random_state, after_steps(step if purpose.startswith("inner") else self.learner.steps), self.buffers.within(stepper.network), checkpoint_guard:
            return stepper.call(params, (arguments or self.learner.arguments)(task, *inputs))

    def _inner_call(self, stepper: Stepper, params: Params, step: int) -> Call:
        """The model in an inner step; a second call draws other random numbers than the first."""
        task, count = self.task._replace(support=self.support), itertools.count()

        def call(*inputs: Any) -> Any:
            n = next(count)
            return self._call(stepper, params, task, inputs, f"inner/{n}" if n else "inner", step)

        return call

    def _sampled(self, call: Call, batch: Tree, draw: int) -> Tree:
        """The batch, or the examples drawn from it."""
        if self.learner.sample is None:
            return batch
        with torch.no_grad():
            examples = self.learner.sample(call, batch, draw)
            try:
                return tree_map(torch.Tensor.detach, examples)
            except TypeError as error:
                raise BrokenContract("sample", component_name(self.learner.sample), f"returned examples that {error}") from None

    def _run(self, stepper: Stepper, meta: Params, differentiated: Differentiated = lambda step, steps: False) -> tuple[Params, State]:
        params, state = meta, self._first_state(meta)
        for k in range(self.learner.steps):
            params, state = self._step(stepper, meta, params, state, k, differentiated(k, self.learner.steps))
        return params, state

    def _first_state(self, meta: Params) -> State:
        return require_state(self.learner.rule.init(self.learner.fast(meta)), self.learner.rule)

    def _step(self, stepper: Stepper, meta: Params, params: Params, state: State, k: int, create_graph: bool = False) -> tuple[Params, State]:
        return stepper.step(params, state, self.learner.rule_at(meta, k), lambda p: self._loss(stepper, p, meta, k), create_graph)

    def _loss(self, stepper: Stepper, params: Params, anchor: Params | None, k: int) -> Tensor:
        call = self._inner_call(stepper, params, k)
        value = require_scalar(self.learner.loss(call, self._sampled(call, self.support, k)), "inner loss", self.learner.loss)
        if self.learner.steps and self.learner.fast(params):
            require_graph(value, "inner loss", self.learner.loss, "inner loop")
        if anchor is not None and self.learner.proximal:
            distances = [(p - anchor[name]).square().sum() for name, p in self.learner.fast(params).items()]
            value = value + self.learner.proximal / 2 * torch.stack(distances).sum()
        return value

    def _value(self, meta: Params, params: Params, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective of the student."""
        constants = {name: p.detach() for name, p in meta.items()}
        rule = self.learner.rule_at(constants, self.learner.steps)

        def call(params: Params, *inputs: Any) -> Any:
            return self._call(self.differentiable, params, self.task, inputs, "outer", 0)

        def call_for_features(params: Params, *inputs: Any) -> Any:
            return self._call(self.differentiable, params, self.task, inputs, "outer", 0, self.learner.feature_arguments)

        def sample(params: Params, draw: int) -> Tree:
            return self._sampled(partial(call, params), self.task.query, draw)

        @torch.no_grad()
        def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
            updated, state = self.detached.step({n: p.detach() for n, p in params.items()}, detached(state), rule, loss, False)
            return {n: p.detach() for n, p in updated.items()}, detached(state)

        def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
            for i in range(steps):
                params, state = descend(params, state, lambda p, k=self.learner.steps + i: self._loss(self.detached, p, constants, k))  # type: ignore[misc]
            return params, state

        @torch.no_grad()
        def restart() -> tuple[Params, State]:
            afresh = replace(self, buffers=TaskBuffers(self.learner.model, self.buffers.batched))
            return afresh._run(self.detached, {**constants, **(self.learner.average or {})})

        objective = self.learner.objective
        adapted = Adapted(params, state, call, advance, descend, sample, self.learner.criterion, restart, call_for_features)
        return require_objective(objective(adapted, self.task), objective)

    def _differentiable_value(self, meta: Params, params: Params, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """The same where its gradient is taken."""
        value, metrics = self._value(meta, params, state)
        if self.trained(meta):
            require_graph(value, "objective", self.learner.objective, "outer loop")
        return value, metrics

    def _rematerialised(self, meta: Params, differentiated: Differentiated) -> Result:
        """The gradient by a backward pass over single steps, each computed again from the parameters and buffers before it."""
        autodiff = self.differentiable.autodiff
        history = []
        with torch.no_grad():
            params, state = meta, self._first_state(meta)
            for k in range(self.learner.steps):
                history.append((params, state, self.buffers.snapshot()))
                params, state = self._step(self.detached, meta, params, state, k)
        moving = self._moving(meta)
        end_gradients, value, metrics = autodiff.value_and_grad(lambda p: self._differentiable_value(meta, {**params, **p}, state), self._moving(params))
        names, size = list(moving), len(moving)
        cotangents = [*end_gradients.values(), *(torch.zeros_like(x) for x in tensors_of(state))]
        direct = [torch.zeros_like(p) for p in moving.values()]
        for k, (before, state_before, buffers) in reversed(list(enumerate(history))):
            first = k == 0  # its parameters are the meta-parameters themselves: one input, so that gradients are summed in the order of one graph
            self.buffers.restore(buffers)

            def step_again(*inputs: Tensor, k: int = k, state: State = state_before, first: bool = first) -> list[Tensor]:
                start = {**meta, **dict(zip(names, inputs))}
                anchor = start if first else {**meta, **dict(zip(names, inputs[size:]))}
                state = state if first else refilled(state, iter(inputs[2 * size :]))
                updated, state = self._step(self.differentiable, anchor, start, state, k, differentiated(k, self.learner.steps))
                return [*(updated[name] for name in names), *tensors_of(state), *(inputs if first else ())]

            inputs = list(moving.values()) if first else [*self._moving(before).values(), *moving.values(), *tensors_of(state_before)]
            products = autodiff.vjp(step_again, inputs, [*cotangents, *direct] if first else cotangents)
            if first:
                cotangents = products
            else:
                direct = [d + g for d, g in zip(direct, products[size : 2 * size])]
                cotangents = [*products[:size], *products[2 * size :]]
        trained = self.learner.trained(meta)
        return {name: g for name, g in zip(names, cotangents) if name in trained}, value, metrics

    def _moving(self, params: Params) -> Params:
        """Those that either loop moves: a gradient with respect to the first passes through the second."""
        moving = self.learner.trained(params).keys() | self.learner.fast(params).keys()
        return {name: p for name, p in params.items() if name in moving}
