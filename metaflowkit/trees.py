"""Trees of tensors: nested tuples, named tuples, lists and dicts, and the states of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]
State = dict[str, Any]
Tree = Any  # a tensor, or nested tuples, named tuples, lists and dicts of tensors
Call = Callable[..., Any]


def tree_map(function: Callable[[Tensor], Any], tree: Tree) -> Any:
    """The same nesting with ``function(tensor)`` for every tensor.

    Raises:
        TypeError: it holds something that is no tensor.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, item) for key, item in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(function, item) for item in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(tree_map(function, item) for item in tree)
    raise TypeError(f"must hold tensors in nested tuples, lists and dicts, got {type(tree).__name__}")


def tensors(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in order."""
    leaves: list[Tensor] = []
    tree_map(leaves.append, tree)
    return leaves


def tree_stack(trees: Sequence[Tree]) -> Any:
    """One tree with a new leading axis, from trees of one form."""
    return _joined(torch.stack, trees)


def tree_cat(trees: Sequence[Tree]) -> Any:
    """One tree, its tensors joined along their first axis."""
    return _joined(torch.cat, trees)


def _joined(join: Callable[[list[Tensor]], Tensor], trees: Sequence[Tree]) -> Any:
    columns = iter([join(list(column)) for column in zip(*(tensors(tree) for tree in trees))])
    return tree_map(lambda _: next(columns), trees[0])


def detached(state: State) -> State:
    """A rule's state (nested dicts of tensors and numbers) without graph."""
    return {k: detached(v) if isinstance(v, dict) else v.detach() if isinstance(v, Tensor) else v for k, v in state.items()}


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a rule's state, in order."""
    return [x for v in state.values() for x in (tensors_of(v) if isinstance(v, dict) else [v] if isinstance(v, Tensor) else [])]


def refilled(state: State, tensors: Iterator[Tensor]) -> State:
    """A state of the same form with other tensors, those of :func:`tensors_of` one by one."""
    return {k: refilled(v, tensors) if isinstance(v, dict) else next(tensors) if isinstance(v, Tensor) else v for k, v in state.items()}
