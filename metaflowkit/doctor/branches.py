"""Networks with kinks as smooth functions: every ReLU, max-pooling and comparison keeps the branch that it took when recorded.

A network of ReLUs is piecewise smooth, and autograd's derivative is that of the piece the parameters lie in. A gradient step through it jumps
where a unit changes its branch, so that finite differences across a jump differ from the derivative, even a correct one, and float32
differs from float64 where rounding moves a unit across. With the branches held both comparisons are of smooth functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Branch = Any
Choose = Callable[..., Branch]
Apply = Callable[..., Any]

aten = torch.ops.aten


class BranchMismatch(RuntimeError):
    """Other operations ran than those whose branches were recorded."""


class Branches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the branches of operations with kinks in the first use, and holds them in every later one.

    It works below autograd, hence on the operations of the backward pass too, in every engine, and on operations inside fused modules. Operations
    that it does not cover (such as a custom kernel that sorts) keep their kinks.

    Example:
        >>> branches, x = Branches(), torch.tensor([-1.0, 2.0])
        >>> with branches.used():
        ...     x.relu()
        tensor([0., 2.])
        >>> with branches.used():
        ...     (-x).relu()
        tensor([ 0., -2.])
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.records: list[tuple[Any, Branch]] = []
        self.position: int | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Record within this context if nothing has been recorded, else hold.

        Raises:
            BranchMismatch: the operations are not those that were recorded.
        """
        self.position = 0 if self.records else None
        with self:
            yield
        if self.position is not None and self.position != len(self.records):
            raise BranchMismatch(f"{len(self.records)} operations with branches were recorded, and {self.position} ran")

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Calls ``func``, on the recorded branch where it has branches."""
        kwargs = kwargs or {}
        name, overload = func._schema.name.removeprefix("aten::"), func._overloadname
        kind = f"{name}.{overload}" if f"{name}.{overload}" in _KINKS else name
        if kind not in _KINKS:
            return func(*args, **kwargs)
        choose, apply, in_place = _KINKS[kind]
        if self.position is None:
            branch = choose(*args, **kwargs) if choose else func(*args, **kwargs)
            self.records.append((kind, branch))
        else:
            if self.position >= len(self.records) or self.records[self.position][0] != kind:
                raise BranchMismatch(f"{kind} ran as operation {self.position} with branches, where another was recorded")
            branch = self.records[self.position][1]
            self.position += 1
        result = apply(branch, *args, **kwargs)
        return args[0].copy_(result) if in_place else result


def _selected(x: Tensor, at: Tensor) -> Tensor:
    """Pooled values of [..., H, W] at flat indices [..., h, w], in the memory layout that pooling gives them."""
    return torch.empty_like(at, dtype=x.dtype).copy_(x.flatten(-2).gather(-1, at.flatten(-2)).view(at.shape))


def _limits(x: Tensor, low: Any = None, high: Any = None) -> tuple[Tensor, Tensor]:
    nowhere = torch.zeros_like(x, dtype=torch.bool)
    return nowhere if low is None else x < low, nowhere if high is None else x > high


def _limited(branch: Branch, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    result = x if low is None else torch.where(branch[0], low, x)
    return result.clone() if low is high is None else result if high is None else torch.where(branch[1], high, result)


def _pool(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return aten.max_pool2d_with_indices(x, *args, **kwargs)[1]  # type: ignore[no-any-return]


def _gathered_along(at: Tensor, x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values = x.gather(dim, at) if x.dim() else x.clone()
    return (values, at) if keepdim else (values.squeeze(dim), at.squeeze(dim))


_KINKS: dict[str, tuple[Choose | None, Apply, bool]] = {
    "relu": (lambda x: x > 0, lambda on, x: torch.where(on, x, 0.0), False),
    "threshold_backward": (lambda g, x, threshold: x > threshold, lambda on, g, x, threshold: torch.where(on, g, 0.0), False),
    "leaky_relu": (lambda x, slope=0.01: x > 0, lambda on, x, slope=0.01: torch.where(on, x, x * slope), False),
    "leaky_relu_backward": (lambda g, x, slope, of_result: x > 0, lambda on, g, x, slope, of_result: torch.where(on, g, g * slope), False),
    "hardtanh": (lambda x, low=-1.0, high=1.0: _limits(x, low, high), lambda branch, x, low=-1.0, high=1.0: _limited(branch, x, low, high), False),
    "hardtanh_backward": (
        lambda g, x, low, high: (x > low) & (x < high),
        lambda inside, g, x, low, high: torch.where(inside, g, 0.0),
        False,
    ),
    "clamp": (_limits, _limited, False),
    "clamp_min": (lambda x, low: _limits(x, low), lambda branch, x, low: _limited(branch, x, low), False),
    "clamp_max": (lambda x, high: _limits(x, None, high), lambda branch, x, high: _limited(branch, x, None, high), False),
    "abs": (lambda x: x.sgn(), lambda sign, x: x * sign.to(x.dtype), False),
    "maximum": (lambda a, b: a >= b, torch.where, False),
    "minimum": (lambda a, b: a <= b, torch.where, False),
    "max_pool2d_with_indices": (_pool, lambda at, x, *args, **kwargs: (_selected(x, at), at), False),
    "adaptive_max_pool2d": (lambda x, size: aten.adaptive_max_pool2d(x, size)[1], lambda at, x, size: (_selected(x, at), at), False),
    "max.dim": (lambda x, dim, keepdim=False: x.argmax(dim, keepdim=True), _gathered_along, False),
    "min.dim": (lambda x, dim, keepdim=False: x.argmin(dim, keepdim=True), _gathered_along, False),
    "sign": (None, lambda sign, x: sign.to(x.dtype), False),
    "sgn": (None, lambda sign, x: sign.to(x.dtype), False),
}
_KINKS |= {f"{name}_": (choose, apply, True) for name, (choose, apply, _) in list(_KINKS.items()) if name in ("relu", "leaky_relu", "hardtanh", "clamp", "abs")}
_KINKS |= {name: (None, lambda outcome, *args, **kwargs: outcome, False) for name in ("gt", "ge", "lt", "le", "eq", "ne")}
