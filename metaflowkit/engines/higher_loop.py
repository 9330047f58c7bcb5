"""The engine on ``higher``: task by task through its functional modules and differentiable optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import higher
import torch
from higher.optim import DifferentiableOptimizer
from torch import Tensor, nn

from metaflowkit.engines.parts import Parts, Rule, task_of
from metaflowkit.registry import ENGINES
from metaflowkit.values import Adaptation, Adapted, Episode, Labelled, Outcome, Params, State, detached


class _RuleOptimizer(torch.optim.Optimizer):
    """Carries a rule to ``higher``; it never steps itself."""

    def __init__(self, names: list[str], params: Iterable[Tensor], rule: Rule) -> None:
        super().__init__(params, {"rule": rule, "names": names})


class _DifferentiableRule(DifferentiableOptimizer):  # type: ignore[misc]
    """Lets a rule take ``higher``'s differentiable steps; a parameter without gradient has the gradient zero."""

    rule_state: State | None = None
    first_order = False

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        (group,), (grads,) = self.param_groups, grouped_grads
        params = dict(zip(group["names"], group["params"]))
        filled = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), grads)}
        if self.first_order:
            filled = {name: g.detach() for name, g in filled.items()}
        state = group["rule"].init(params) if self.rule_state is None else self.rule_state
        after, self.rule_state = group["rule"].update(filled, state, params)
        group["params"] = list(after.values())


higher.register_optim(_RuleOptimizer, _DifferentiableRule)


class _Unrolled:
    """A functional copy of the model with its optimiser; ``tracked`` copies keep the graph to their first weights."""

    def __init__(self, parts: Parts, params: Params | None, state: State | None, tracked: bool) -> None:
        model: nn.Module = parts.model
        self.names = [name for name, _ in model.named_parameters()]
        self.fmodel = higher.patch.monkeypatch(model, copy_initial_weights=False, track_higher_grads=tracked)
        if params is not None:
            self.fmodel.update_params([p.detach().requires_grad_() for p in params.values()])
        weights = list(model.parameters())
        shell = _RuleOptimizer(self.names, weights, parts.rule)
        self.optimizer = higher.get_diff_optim(shell, weights, fmodel=self.fmodel, track_higher_grads=tracked)
        self.optimizer.first_order = parts.first_order or not tracked
        self.optimizer.rule_state = state

    def params(self) -> Params:
        return dict(zip(self.names, self.fmodel.fast_params))


@ENGINES.register("higher")
class HigherEngine:
    """Task by task through ``higher``'s functional modules and differentiable optimiser, which runs this library's rules.

    Reference:
        E. Grefenstette et al., Generalized Inner Loop Meta-Learning, 2019.
    """

    def __init__(self) -> None:
        self.description = "higher, task by task"

    def outcome(self, parts: Parts, episode: Episode) -> Outcome:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        named = dict(parts.model.named_parameters())
        tasks = len(episode.support.x)
        gradients = {name: torch.zeros_like(p) for name, p in named.items()}
        values, metrics = [], []
        for t in range(tasks):
            task = task_of(episode, t)
            value, found = parts.objective(_adapted(parts, task.support, task, tracked=True), task)
            if value.requires_grad:
                for name, g in zip(named, torch.autograd.grad(value, list(named.values()), allow_unused=True)):
                    if g is not None:
                        gradients[name] += g / tasks
            values.append(value.detach())
            metrics.append({key: m.detach() for key, m in found.items()})
        means = {key: torch.stack([m[key] for m in metrics]).mean() for key in metrics[0]}
        return Outcome(torch.stack(values).mean(), means, gradients)

    def adapt(self, parts: Parts, support: Labelled, episode: Episode) -> Adaptation:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        params, logits = [], []
        for t in range(len(episode.support.x)):
            task = task_of(episode, t)
            adapted = _adapted(parts, Labelled(support.x[t], support.y[t]), task, tracked=False)
            with torch.no_grad():
                logits.append(adapted.logits(adapted.params, task.query.x))
            params.append({name: p.detach() for name, p in adapted.params.items()})
        return Adaptation({name: torch.stack([p[name] for p in params]) for name in params[0]}, torch.stack(logits))


def _adapted(parts: Parts, shown: Labelled, task: Episode, tracked: bool) -> Adapted:
    """K inner steps on ``shown``; with ``tracked`` they carry the graph."""
    student = _Unrolled(parts, None, None, tracked)

    def inner_loss(unrolled: _Unrolled) -> Tensor:
        return parts.loss(unrolled.fmodel(shown, None, task.way), shown.y)

    def logits(params: Params, x: Tensor) -> Tensor:
        return student.fmodel(task.support, x, task.way, params=list(params.values())).logits  # type: ignore[no-any-return]

    def go_on(params: Params, state: State, steps: int, loss: Callable[[_Unrolled], Tensor]) -> tuple[Params, State]:
        # A copy of its own: switching the student's tracking off would turn its later steps into no-ops.
        with torch.enable_grad():
            target = _Unrolled(parts, params, detached(state), tracked=False)
            for _ in range(steps):
                target.optimizer.step(loss(target))
        return {n: p.detach() for n, p in target.params().items()}, detached(target.optimizer.rule_state or state)

    def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
        return go_on(params, state, steps, inner_loss)

    def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
        return go_on(params, state, 1, lambda target: loss(target.params()))

    for _ in range(parts.steps):
        student.optimizer.step(inner_loss(student))
    params = student.params()
    state = student.optimizer.rule_state
    return Adapted(params, parts.rule.init(params) if state is None else state, logits, advance, descend)
