"""Two ways to take gradients: torch.func, which vmap can batch, and torch.autograd, which does without nested transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, func

from metaflowkit.trees import Params

Function = Callable[[Params], Tensor]


class Autodiff(Protocol):
    """The differentiation that the engines need."""

    def grad(self, function: Function, params: Params, create_graph: bool) -> Params:
        """The gradient of a scalar at ``params``; with ``create_graph`` it can be differentiated again, else it is a constant."""

    def value_and_grad(self, function: Callable[[Params], tuple[Tensor, Any]], params: Params) -> tuple[Params, Tensor, Any]:
        """Gradient, value and auxiliary result of ``function(params) -> (value, auxiliary)``, all without graph."""

    def vjp(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
        """The product of ``cotangents`` with the Jacobian of ``function`` at ``inputs``, without graph."""


class Functional:
    """torch.func: nests, and works inside vmap."""

    def grad(self, function: Function, params: Params, create_graph: bool) -> Params:
        """The gradient of a scalar by ``torch.func.grad``."""
        gradients = func.grad(function)(params)
        return gradients if create_graph else {name: g.detach() for name, g in gradients.items()}

    def value_and_grad(self, function: Callable[[Params], tuple[Tensor, Any]], params: Params) -> tuple[Params, Tensor, Any]:
        """Gradient, value and auxiliary result by ``torch.func.grad_and_value``."""
        gradients, (value, auxiliary) = func.grad_and_value(function, has_aux=True)(params)
        return gradients, value, auxiliary

    def vjp(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
        """The product of cotangents with the Jacobian, as the gradient of a scalar product."""

        def product(inputs: tuple[Tensor, ...]) -> Tensor:
            return torch.stack([(result * cotangent).sum() for result, cotangent in zip(function(*inputs), cotangents)]).sum()

        # As the gradient of a product: torch.func.vjp inside vmap fails in the second derivative of batch normalisation.
        return list(func.grad(product)(tuple(inputs)))


class Eager:
    """torch.autograd on leaves; a result that does not depend on an input has the gradient zero."""

    def grad(self, function: Function, params: Params, create_graph: bool) -> Params:
        """The gradient of a scalar by ``torch.autograd.grad``."""
        with torch.enable_grad():
            inputs = tracked(params) if create_graph else _leaves(params)
            return dict(zip(inputs, _grad([function(inputs)], list(inputs.values()), None, create_graph=create_graph)))

    def value_and_grad(self, function: Callable[[Params], tuple[Tensor, Any]], params: Params) -> tuple[Params, Tensor, Any]:
        """Gradient, value and auxiliary result, detached from the graph."""
        with torch.enable_grad():
            inputs = _leaves(params)
            value, auxiliary = function(inputs)
            gradients = dict(zip(inputs, _grad([value], list(inputs.values()), None)))
        return gradients, value.detach(), {key: item.detach() for key, item in auxiliary.items()}

    def vjp(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
        """The product of cotangents with the Jacobian by ``torch.autograd.grad``."""
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            return _grad(function(*leaves), leaves, cotangents)


def tracked(params: Params) -> Params:
    """The parameters, each a leaf of its own where it carries no graph: one that the outer loop does not move still adapts."""
    return {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}


def _leaves(params: Params) -> Params:
    return {name: p.detach().requires_grad_() for name, p in params.items()}


def _grad(results: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor] | None, create_graph: bool = False) -> list[Tensor]:
    indices = [i for i, result in enumerate(results) if result.requires_grad]
    if not indices or not inputs:
        return [torch.zeros_like(x) for x in inputs]
    weights = None if cotangents is None else [cotangents[i] for i in indices]
    gradients = torch.autograd.grad([results[i] for i in indices], inputs, weights, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients)]
