"""The inner loop of one task and its outer gradient, in every order: what the engines share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from metaflowkit.engines.autodiff import Autodiff, Function
from metaflowkit.engines.buffers import TaskBuffers
from metaflowkit.engines.parts import Parts, Rule
from metaflowkit.engines.recomputation import no_recomputation
from metaflowkit.engines.safety import draws, without_dropout
from metaflowkit.models.normalisation import after_steps, measured
from metaflowkit.orders.base import Result
from metaflowkit.seeding import seed_for, seeded
from metaflowkit.types import Adapted, Episode, Labelled, Outputs, Params, State, detached, refilled, tensors_of

Differentiated = Callable[[int, int], bool]


class Stepper(Protocol):
    """How an engine calls the model and takes a step.

    ``params`` are always all parameters by name; a step moves those that adapt.
    """

    @property
    def autodiff(self) -> Autodiff:
        """How gradients are taken here."""

    @property
    def network(self) -> nn.Module:
        """The module that is called, whose mode counts."""

    def call(self, params: Params, support: Labelled, x: Tensor | None, way: int) -> Outputs:
        """The model with these parameters; see :meth:`metaflowkit.models.model.Model.forward`."""

    def step(self, params: Params, state: State, rule: Rule, loss: Function, create_graph: bool) -> tuple[Params, State]:
        """One step of the rule on ``loss(params)``; without ``create_graph`` the gradient is a constant."""


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop of one task.

    Attributes:
        parts: the parts of the learner.
        differentiable: takes the steps that the outer gradient goes through.
        detached: takes the steps that it does not.
        buffers: the model's buffers as the task has them.
        shown: what is learned from.
        task: the task.
    """

    parts: Parts
    differentiable: Stepper
    detached: Stepper
    buffers: TaskBuffers
    shown: Labelled
    task: Episode

    def outcome(self, meta: Params) -> Result:
        """Meta-gradients of the objective for what is trained, its value and metrics, in the order of the parts."""
        return self.parts.order.gradient(self, meta)

    @property
    def proximal(self) -> float:
        """See :class:`metaflowkit.orders.base.Loop`, also for the methods below."""
        return self.parts.proximal

    def trained(self, params: Params) -> Params:
        """Those that the outer loop moves."""
        return self.parts.trained(params)

    def fast(self, params: Params) -> Params:
        """Those that the inner loop moves."""
        return self.parts.fast(params)

    def unrolled(self, meta: Params, differentiated: Differentiated) -> Result:
        """The objective's gradient through the inner steps."""
        if self.parts.remat:
            return self._rematerialised(meta, differentiated)

        def value(trained: Params) -> tuple[Tensor, dict[str, Tensor]]:
            at = {**meta, **trained}
            return self._value(at, *self._run(self.differentiable, at, differentiated))

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
        result = self.differentiable.autodiff.value_and_grad(lambda p: self._value(meta, {**params, **p}, state), self.trained(params))
        self.buffers.restore(buffers)
        return result

    def curvature(self, params: Params, moved: list[str], vector: list[Tensor]) -> list[Tensor]:
        """The product of a vector with second derivatives of the inner loss; buffers stay as adaptation left them."""
        fast, autodiff, buffers = list(self.fast(params)), self.differentiable.autodiff, self.buffers.snapshot()

        def slopes(*inputs: Tensor) -> list[Tensor]:
            at = {**params, **dict(zip(moved, inputs))}
            gradients = autodiff.grad(
                lambda f: self._loss(self.differentiable, {**at, **f}, None, self.parts.steps), {n: at[n] for n in fast}, create_graph=True
            )
            return [gradients[name] for name in fast]

        product = autodiff.vjp(slopes, [params[name] for name in moved], vector)
        self.buffers.restore(buffers)
        return product

    @torch.no_grad()
    def adapt(self, meta: Params) -> tuple[Params, Tensor]:
        """Adapted parameters, and the scores of the query set, without graph."""
        with measured():
            params, _ = self._run(self.detached, meta)
        with measured(), after_steps(self.parts.steps), without_dropout(self.detached.network), self.buffers.within(self.detached.network):
            return params, self.detached.call(params, self.task.support, self.task.query.x, self.task.way).logits

    @cached_property
    def random(self) -> bool:
        """Whether the model draws random numbers."""
        return draws(self.parts.model)

    def _call(self, stepper: Stepper, params: Params, support: Labelled, x: Tensor | None, moment: str, index: int = 0) -> Outputs:
        """The model; what it draws at random is the same in every engine, and when a step is computed again."""
        drawing = seeded(seed_for(self.task.seed, moment, index), support.x.device) if self.random else nullcontext()
        differentiated = no_recomputation() if torch.is_grad_enabled() else nullcontext()
        with drawing, after_steps(index if moment == "inner" else self.parts.steps), self.buffers.within(stepper.network), differentiated:
            return stepper.call(params, support, x, self.task.way)

    def _run(self, stepper: Stepper, meta: Params, differentiated: Differentiated = lambda step, steps: False) -> tuple[Params, State]:
        params, state = meta, self.parts.rule.init(self.parts.fast(meta))
        for k in range(self.parts.steps):
            params, state = self._step(stepper, meta, params, state, k, differentiated(k, self.parts.steps))
        return params, state

    def _step(self, stepper: Stepper, meta: Params, params: Params, state: State, k: int, create_graph: bool = False) -> tuple[Params, State]:
        return stepper.step(params, state, self.parts.rule_at(meta, k), lambda p: self._loss(stepper, p, meta, k), create_graph)

    def _loss(self, stepper: Stepper, params: Params, anchor: Params | None, k: int) -> Tensor:
        value = self.parts.loss(self._call(stepper, params, self.shown, None, "inner", k), self.shown.y)
        if anchor is not None and self.parts.proximal:
            away = [(p - anchor[name]).square().sum() for name, p in self.parts.fast(params).items()]
            value = value + self.parts.proximal / 2 * torch.stack(away).sum()
        return value

    def _value(self, meta: Params, params: Params, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective of the student."""
        fixed = {name: p.detach() for name, p in meta.items()}
        rule = self.parts.rule_at(fixed, self.parts.steps)

        def logits(params: Params, x: Tensor) -> Tensor:
            return self._call(self.differentiable, params, self.task.support, x, "outer").logits

        @torch.no_grad()
        def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
            after, state = self.detached.step({n: p.detach() for n, p in params.items()}, detached(state), rule, loss, False)
            return {n: p.detach() for n, p in after.items()}, detached(state)

        def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
            for i in range(steps):
                params, state = descend(params, state, lambda p, k=self.parts.steps + i: self._loss(self.detached, p, fixed, k))  # type: ignore[misc]
            return params, state

        return self.parts.objective(Adapted(params, state, logits, advance, descend), self.task)

    def _rematerialised(self, meta: Params, differentiated: Differentiated) -> Result:
        """Back through the steps one at a time, each computed again from the parameters and buffers before it."""
        autodiff = self.differentiable.autodiff
        trail = []
        with torch.no_grad():
            params, state = meta, self.parts.rule.init(self.parts.fast(meta))
            for k in range(self.parts.steps):
                trail.append((params, state, self.buffers.snapshot()))
                params, state = self._step(self.detached, meta, params, state, k)
        trained = self.parts.trained(meta)
        at_end, value, metrics = autodiff.value_and_grad(lambda p: self._value(meta, {**params, **p}, state), self.parts.trained(params))
        names, size = list(trained), len(trained)
        back = [*at_end.values(), *(torch.zeros_like(x) for x in tensors_of(state))]
        direct = [torch.zeros_like(p) for p in trained.values()]
        for k, (before, state_before, buffers) in reversed(list(enumerate(trail))):
            first = k == 0  # here the parameters are the meta-parameters themselves: one input, to add up in the order of one graph
            self.buffers.restore(buffers)

            def again(*inputs: Tensor, k: int = k, state: State = state_before, first: bool = first) -> list[Tensor]:
                start = {**meta, **dict(zip(names, inputs))}
                anchor = start if first else {**meta, **dict(zip(names, inputs[size:]))}
                state = state if first else refilled(state, iter(inputs[2 * size :]))
                after, state = self._step(self.differentiable, anchor, start, state, k, differentiated(k, self.parts.steps))
                return [*(after[name] for name in names), *tensors_of(state), *(inputs if first else ())]

            inputs = list(trained.values()) if first else [*self.parts.trained(before).values(), *trained.values(), *tensors_of(state_before)]
            pulled = autodiff.vjp(again, inputs, [*back, *direct] if first else back)
            if first:
                back = pulled
            else:
                direct = [d + g for d, g in zip(direct, pulled[size : 2 * size])]
                back = [*pulled[:size], *pulled[2 * size :]]
        return dict(zip(names, back)), value, metrics
