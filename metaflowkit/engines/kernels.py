"""Convolution and batch normalisation with cheap second derivatives.

torch differentiates both twice, but at a high cost, at every inner step of a meta-gradient: the second derivative of batch
normalisation is some thirty passes over the activations, that of a convolution treats whole activations as kernels. Inside
:class:`FastKernels` both are replaced, in any network, by functions with the same values whose derivatives are written out.

Batch normalisation and a 2x2 max-pooling after it are also one function, :func:`metaflowkit.models.batch_statistics.norm_then_pool`: the selection S of the
largest values commutes with a monotone map, so that only statistics are taken over all values and the rest over a quarter.

    x^ = (x - mean x) r,  r = (var x + eps)^(-1/2),  y = gamma S x^ + beta                     (S the identity without pooling)

With m values per channel and P(v) = v - mean(v) - x^ mean(v x^), so that dx^ = r P(dx), the gradient for g = dL/dy is

    dbeta = sum g,  dgamma = sum g S x^,  dx = gamma r P(S' g)

and for cotangents G, a, b of dx, dgamma, dbeta, with q = <G, P(S' g)> and t = mean(G x^), the gradient of that is

    dg = gamma r S P(G) + a S x^ + b,  dgamma = r q,  dx = r P((a - gamma r t) S' g - (gamma r dgamma / m) G) - gamma r^2 x^ q / m
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.modules.module as shared
from torch import Tensor, nn
from torch.autograd import Function

from metaflowkit.models.batch_statistics import AccurateNorms, batch_norm_by, gradient_sums, is_channels_last, moments, norm_then_pool
from metaflowkit.models.normalisation import StoredNorm

TRACED: ContextVar[bool] = ContextVar("traced", default=False)  # whether operations are traced, which then have to serve all values


class FastKernels(AccurateNorms):
    """Within this context convolutions and batch normalisations are those of this module, where they can be.

    Values agree with torch's to rounding. Batch normalisation is replaced where it uses the statistics of the current set
    and keeps none; a third derivative of it raises. Under autocast convolutions round their operands as torch's do. What is not
    replaced (other data types, input that torch refuses) is torch's own. Not for use inside torch.func's transforms.

    Args:
        second: whether second derivatives will be taken; without, convolutions stay torch's own, whose values and first
            derivatives are bit-identical and which call no Python in the backward pass.
    """

    def __init__(self, second: bool = True) -> None:
        super().__init__()
        self.replaced = _REPLACED if second else _WITHOUT_CONVOLUTIONS


def _hooked(module: nn.Module) -> bool:
    """Whether calling the module runs hooks besides its ``forward``; as in :meth:`torch.nn.Module.__call__`."""
    module_hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    global_hooks = (shared._global_forward_hooks, shared._global_forward_pre_hooks, shared._global_backward_hooks, shared._global_backward_pre_hooks)
    return any(module_hooks) or any(global_hooks)


def _norm_then_pool(x: Tensor, norm: nn.Module) -> Tensor:
    if (
        (type(norm) is nn.BatchNorm2d or (type(norm) is StoredNorm and norm.takes_current))
        and norm.running_mean is None
        and not _hooked(norm)
        and _normalises(x, norm.weight, norm.bias, norm.eps)
        and min(x.shape[2:]) > 1
    ):
        return _Normalise.apply(x, norm.weight, norm.bias, norm.eps, True)  # type: ignore[no-any-return]
    with AccurateNorms():
        return norm_then_pool(x, norm)


def _normalised(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor | None:
    return _Normalise.apply(input, weight, bias, eps, False) if _normalises(input, weight, bias, eps) else None


def _normalises(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> bool:
    """Whether :class:`_Normalise` takes this input; torch's own refuses some of the rest with a message of its own."""
    if weight is None or bias is None or x.dim() != 4 or not _plain(x, weight, bias):
        return False
    return eps > 0 and x.numel() > x.shape[1] > 0 and weight.shape == bias.shape == x.shape[1:2]


def _plain(*tensors: Tensor) -> bool:
    """Whether the tensors have one data type that the kernels here support."""
    return all(t.dtype == tensors[0].dtype for t in tensors) and tensors[0].dtype in (torch.float32, torch.float64)


def _conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    if torch.is_autocast_enabled("cpu") and input.dtype != torch.float64:  # which torch leaves as it is, too
        rounded = torch.get_autocast_dtype("cpu")
        input, weight, bias = input.to(rounded), weight.to(rounded), None if bias is None else bias.to(rounded)
    if isinstance(padding, str) or input.dim() != 4 or not input.numel() or not (_plain(input, weight) or input.dtype == weight.dtype == torch.bfloat16):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    geometry = (*((v, v) if isinstance(v, int) else v for v in (stride, padding, dilation)), False, (0, 0), groups)
    return _Convolve.apply(input, weight, bias, geometry)  # type: ignore[no-any-return]


_WITHOUT_CONVOLUTIONS: dict[Any, Callable[..., Tensor]] = {
    **AccurateNorms.replaced,
    norm_then_pool: _norm_then_pool,
    F.batch_norm: batch_norm_by(_normalised, tracked=False),
}
_REPLACED: dict[Any, Callable[..., Tensor]] = {**_WITHOUT_CONVOLUTIONS, torch.conv2d: _conv2d}


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return torch.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        output_mask = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return *_ConvolveBack.apply(g, x, weight, ctx.geometry, output_mask), None
        return *_convolution_backward(g, x, weight, [weight.shape[0]], *ctx.geometry, output_mask), None


class _ConvolveBack(Function):
    """Linear in g, and in (x, weight) for each g: so its own gradient is again made of convolutions and of itself."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, geometry: Any, output_mask: Any) -> Any:
        ctx.save_for_backward(g if output_mask[0] else None, x, weight)  # without a gradient for x, as for images, the second derivative does not use g
        ctx.geometry, ctx.shape = geometry, g.shape
        ctx.set_materialize_grads(False)
        return _convolution_backward(g, x, weight, [weight.shape[0]], *geometry, output_mask)

    @staticmethod
    def backward(ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None) -> Any:
        g, x, weight = ctx.saved_tensors
        for_g = for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            pairs = [(to_x, weight), (x, to_weight)]
            parts = [_Convolve.apply(a, b, None, ctx.geometry) for a, b in pairs if a is not None and b is not None]
            parts += [] if to_bias is None else [to_bias[:, None, None].expand(ctx.shape)]
            for_g = sum(parts[1:], parts[0]) if parts else None
        output_mask = (to_weight is not None and ctx.needs_input_grad[1], to_x is not None and ctx.needs_input_grad[2], False)
        if any(output_mask):
            for_x, for_weight, _ = _ConvolveBack.apply(g, x if to_x is None else to_x, weight if to_weight is None else to_weight, ctx.geometry, output_mask)
        return for_g, for_x, for_weight, None, None


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    values, index = F.max_pool2d_with_indices(x, [2, 2])
    return values, index.to(torch.int16 if x.shape[-2] * x.shape[-1] <= 2**15 else torch.int32)  # kept until the backward pass: int64 would triple the memory


def _add_scattered(x: Tensor, q: Tensor, index: Tensor | None) -> None:
    """x += S' q."""
    if index is None:
        x += q
    elif is_channels_last(x) and q.is_contiguous(memory_format=torch.channels_last):
        x.flatten(2).mT.scatter_add_(1, index.flatten(2).long().mT, q.flatten(2).mT)
    else:
        x += _max_pool_backward(q, x, (2, 2), (2, 2), (0, 0), (1, 1), False, index.long())


def _gather(v: Tensor, index: Tensor | None) -> Tensor:
    """S v."""
    if index is None:
        return v
    indices = index.flatten(2).long()
    if not is_channels_last(v):
        return v.flatten(2).gather(2, indices).view_as(index)
    return v.flatten(2).mT.gather(1, indices.mT).mT.view(index.shape)


class _Normalise(Function):
    """y = gamma S x^ + beta, see the module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, pool: bool) -> Tensor:
        mean, var = moments(x)
        r = (var + eps).rsqrt()
        pooled = index = None
        if pool:
            if TRACED.get() or gamma.min().item() < 0:  # there the largest value of y is the smallest of x; a trace serves all values
                sign = torch.where(gamma < 0, -1.0, 1.0).to(x)[:, None, None]
                pooled, index = _pooled(x * sign)
                pooled *= sign
            else:
                pooled, index = _pooled(x)
        y, _, _ = torch.native_batch_norm(x if pooled is None else pooled, gamma, beta, mean, var, False, 0.0, eps)
        ctx.save_for_backward(x, gamma, mean, r, pooled, index)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        backward: Callable[..., Any] = _NormaliseBack.apply if torch.is_grad_enabled() else _normalise_back
        return *backward(g, *ctx.saved_tensors), None, None


def _normalise_back(g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, r: Tensor, pooled: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dgamma, dbeta) of :class:`_Normalise`."""
    slope, total = gradient_sums(g, x if pooled is None else pooled, mean, r)
    scale = gamma * r
    share = scale / -(x.numel() // x.shape[1])
    of_x = share * r * slope
    dx = torch.addcmul(torch.addcmul(share * total, of_x, mean, value=-1)[:, None, None], x, of_x[:, None, None])  # the one array of the size of x
    _add_scattered(dx, g * scale[:, None, None], index)
    return dx, slope, total


class _NormaliseBack(Function):
    """The same with a graph."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        dx, slope, total = _normalise_back(*inputs)
        g, x, gamma, mean, r, pooled, index = inputs
        ctx.save_for_backward(g, x, gamma, mean, r, pooled, index, total, slope)
        return dx, slope, total

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        with torch.no_grad():
            gradients = _NormaliseBack.second(ctx, *cotangents)
        if torch.is_grad_enabled():
            gradients = _NotDifferentiable.apply(gradients, *cotangents, *ctx.saved_tensors[:3])
        return *gradients, None, None, None, None

    @staticmethod
    def second(ctx: Any, to_x: Tensor, to_gamma: Tensor, to_beta: Tensor) -> tuple[Tensor, ...]:
        """The gradient for (g, x, gamma)."""
        g, x, gamma, mean, r, pooled, index, total, slope = ctx.saved_tensors
        m = x.numel() // x.shape[1]
        scale, part = gamma * r, slope / -m
        t, t_total = gradient_sums(to_x, x, mean, r)
        t, t_mean = t / m, t_total / m
        gathered = _gather(to_x, index)
        on_g = r * torch.addcmul(to_gamma, scale, t, value=-1)
        for_g = torch.addcmul((to_beta - scale * t_mean - on_g * mean)[:, None, None], x if pooled is None else pooled, on_g[:, None, None])
        for_g.addcmul_(gathered, scale[:, None, None])
        # q, with one pass over (gathered, g): batch normalisation's sums with mean 0 and deviation 1
        overlap, _ = gradient_sums(g, gathered, torch.zeros_like(r), torch.ones_like(r))
        q = overlap - t_mean * total - t * slope
        on_to = scale * r * part
        on_x = r * (on_g * part - on_to * t - scale * r * q / m)
        constant = on_g * total / -m - on_to * t_mean - on_x * mean
        for_x = torch.addcmul(constant[:, None, None], x, on_x[:, None, None]).addcmul_(to_x, on_to[:, None, None])
        _add_scattered(for_x, g * on_g[:, None, None], index)
        return for_g, for_x, r * q


class _NotDifferentiable(Function):
    """Constants in the graph of the parents, which raise where they are differentiated."""

    @staticmethod
    def forward(ctx: Any, constants: tuple[Tensor, ...], *parents: Tensor) -> Any:
        return tuple(x.view_as(x) for x in constants)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError("batch normalisation has no third derivative here; leave FastKernels for torch's own")


_convolution_backward = torch.ops.aten.convolution_backward.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
