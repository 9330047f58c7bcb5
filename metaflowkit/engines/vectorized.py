"""The engine on torch.func: the whole meta-gradient of a task is one function, batched over tasks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from metaflowkit.engines.parts import Parts
from metaflowkit.registry import ENGINES
from metaflowkit.schema import Count
from metaflowkit.values import Adaptation, Adapted, Episode, Labelled, Outcome, Params, State


@ENGINES.register("vectorized")
class VectorizedEngine:
    """torch.func: one function gives a task's value and meta-gradient, and vmap runs it over the tasks.

    The gradient is taken inside vmap and the mean over tasks after it: differentiating *through* a vmapped inner loop is
    silently wrong for batch and layer normalisation (https://github.com/pytorch/functorch/issues/534).

    Args:
        chunk: tasks per vmap call; 1 runs task by task without vmap, null all at once. More is faster on a GPU and for
            narrow networks, and takes memory in proportion.
    """

    def __init__(self, chunk: Count | None = None) -> None:
        self.chunk = chunk
        self.description = "vectorized, " + ("all tasks at once" if chunk is None else f"{chunk} task{'s' * (chunk > 1)} at a time")

    def outcome(self, parts: Parts, episode: Episode) -> Outcome:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        params = {name: p.detach() for name, p in parts.model.named_parameters()}

        def value_of(params: Params, support: Labelled, query: Labelled) -> tuple[Tensor, dict[str, Tensor]]:
            task = Episode(support, query, episode.way)
            return parts.objective(_adapted(parts, params, support, task), task)

        gradients, (values, metrics) = self._map(grad_and_value(value_of, has_aux=True), params, episode, episode.support)
        return Outcome(values.mean(), {k: v.mean(0) for k, v in metrics.items()}, {k: v.mean(0) for k, v in gradients.items()})

    @torch.no_grad()
    def adapt(self, parts: Parts, support: Labelled, episode: Episode) -> Adaptation:
        """See :class:`metaflowkit.engines.parts.Engine`."""
        params = {name: p.detach() for name, p in parts.model.named_parameters()}

        def adapt_one(params: Params, clean: Labelled, query: Labelled, shown: Labelled) -> tuple[Params, Tensor]:
            task = Episode(clean, query, episode.way)
            adapted = _adapted(parts, params, shown, task)
            return adapted.params, adapted.logits(adapted.params, query.x)

        return Adaptation(*self._map(adapt_one, params, episode, support, with_clean=True))

    def _map(self, function: Callable, params: Params, episode: Episode, shown: Labelled, with_clean: bool = False):  # type: ignore[no-untyped-def, type-arg]
        sets = (episode.support, episode.query, shown) if with_clean else (episode.support, episode.query)
        if self.chunk != 1:
            return vmap(function, in_dims=(None,) + (0,) * len(sets), chunk_size=self.chunk, randomness="error")(params, *sets)
        results = [function(params, *(Labelled(s.x[t], s.y[t]) for s in sets)) for t in range(len(episode.support.x))]
        return _stack(results)


def _stack(results: list):  # type: ignore[no-untyped-def, type-arg]
    first = results[0]
    if isinstance(first, Tensor):
        return torch.stack(results)
    if isinstance(first, dict):
        return {key: torch.stack([r[key] for r in results]) for key in first}
    return tuple(_stack([r[i] for r in results]) for i in range(len(first)))


def _adapted(parts: Parts, params: Params, shown: Labelled, task: Episode) -> Adapted:
    """K inner steps on ``shown``, and the functions with which an objective goes on from there."""

    def logits(params: Params, x: Tensor) -> Tensor:
        return functional_call(parts.model, params, (task.support, x, task.way)).logits  # type: ignore[no-any-return]

    def inner_loss(params: Params) -> Tensor:
        return parts.loss(functional_call(parts.model, params, (shown, None, task.way)), shown.y)

    def step(params: Params, state: State, loss: Callable[[Params], Tensor], first_order: bool) -> tuple[Params, State]:
        gradients = grad(loss)(params)
        if first_order:
            gradients = {name: g.detach() for name, g in gradients.items()}
        return parts.rule.update(gradients, state, params)

    def descend(params: Params, state: State, loss: Callable[[Params], Tensor]) -> tuple[Params, State]:
        with torch.no_grad():  # torch.func.grad inside no_grad still gives gradients; only the outer graph is not kept
            return step(params, state, loss, True)

    def advance(params: Params, state: State, steps: int) -> tuple[Params, State]:
        for _ in range(steps):
            params, state = descend(params, state, inner_loss)
        return params, state

    state = parts.rule.init(params)
    for _ in range(parts.steps):
        params, state = step(params, state, inner_loss, parts.first_order)
    return Adapted(params, state, logits, advance, descend)
