"""Rows of a tensor that lies in a file, or that are computed from one: what is asked for is read, so that a data set may be larger than the memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

ATEN = torch.ops.aten


class Base(Protocol):
    """What rows are read of: a tensor, or what computes them from one."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """The rows of an index of any shape, int64."""


class MappedRows(Tensor):
    """Some rows of a tensor, in some order, as a tensor.

    Rows that are taken by index are read and copied; slices along the first axis stay lazy; any other operation reads all rows first, and so works as on an
    ordinary tensor, with the memory of one.

    Args:
        base: all rows, such as mapped from a file.
        rows: which of them, int64 [n].
        content: what identifies the values of all rows, so that they need not be read for that; empty where nothing does.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, base: Base, rows: Tensor, content: str = "") -> MappedRows:
        """A tensor without memory of its own."""
        tensor: MappedRows = torch.Tensor._make_wrapper_subclass(cls, (len(rows), *base.shape[1:]), dtype=base.dtype, device=base.device)
        return tensor

    def __init__(self, base: Base, rows: Tensor, content: str = "") -> None:
        self.base, self.rows, self.content = base, rows, content

    def __repr__(self, **settings: Any) -> str:  # type: ignore[override]
        return f"MappedRows({list(self.shape)}, {self.dtype})"

    def numpy(self, **settings: Any) -> Any:
        """All rows as an array."""
        return self.read().numpy(**settings)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.read().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> MappedRows:
        return self  # it is never written to

    def read(self) -> Tensor:
        """All rows in memory."""
        return self.base[self.rows]

    def at(self, rows: Tensor) -> MappedRows:
        """Those of these rows; nothing is read."""
        return MappedRows(self.base, rows, self.content)

    def fingerprint(self) -> str:
        """What identifies the values; empty where nothing does but reading them."""
        return self.content and hashlib.sha256(self.content.encode() + self.rows.numpy().tobytes()).hexdigest()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), settings: dict[str, Any] | None = None) -> Any:  # type: ignore[override]
        lazy = LAZY.get(function)
        if lazy is not None and isinstance(arguments[0], cls) and not settings:
            result = lazy(*arguments)
            if result is not NotImplemented:
                return result
        arguments, settings = tree_map(lambda x: x.read() if isinstance(x, cls) else x, (arguments, settings or {}))
        return function(*arguments, **settings)


def rows_of(x: Tensor, rows: Tensor | Sequence[int]) -> Tensor:
    """``x[rows]``, which of a mapped tensor reads nothing yet."""
    if isinstance(x, MappedRows):
        return x.at(x.rows[torch.as_tensor(rows, dtype=torch.int64)])
    return x[rows]


def _index(x: MappedRows, indices: Sequence[Tensor | None]) -> Any:
    return x.base[x.rows[indices[0]]] if len(indices) == 1 and indices[0] is not None else NotImplemented


def _select(x: MappedRows, dim: int, index: Tensor | int) -> Any:
    return x.base[x.rows[index]] if dim == 0 else NotImplemented


def _slice(x: MappedRows, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x.at(x.rows[start:end:step]) if dim == 0 else NotImplemented


def _split(x: MappedRows, size: int, dim: int = 0) -> Any:
    return [x.at(rows) for rows in torch.split(x.rows, size)] if dim == 0 else NotImplemented


def _same(x: MappedRows) -> MappedRows:
    return x.at(x.rows)


LAZY: dict[Any, Callable[..., Any]] = {
    ATEN.index.Tensor: _index,
    ATEN.index_select.default: _select,
    ATEN.select.int: _select,
    ATEN.slice.Tensor: _slice,
    ATEN.split.Tensor: _split,
    ATEN.detach.default: _same,
    ATEN.alias.default: _same,
}
