"""Refusal of ``torch.utils.checkpoint`` inside a model.

Its recomputation in the backward pass comes after the call: with the module's own weights, or later ones, instead of
those of the inner step. The reentrant variant does not work with ``torch.autograd.grad`` at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch.utils import checkpoint

from metaflowkit.errors import ConfigError

REFUSAL = (
    "inner.remat: the network calls torch.utils.checkpoint in its forward, which computes again with other weights than those of the inner step; "
    "take it out of the network and set inner.remat: true, which saves more memory"
)
_REFUSED: ContextVar[bool] = ContextVar("refused", default=False)
_LOCK = threading.Lock()
_entered = 0


@contextmanager
def no_recomputation() -> Iterator[None]:
    """Within this context, in this thread, a call of ``torch.utils.checkpoint`` that would compute again raises.

    Both variants are replaced at the innermost function that they call, whatever name a network imported them under.

    Raises:
        ConfigError: such a call is made.
    """
    global _entered
    with _LOCK:
        if not _entered:
            _replace()
        _entered += 1
    token = _REFUSED.set(True)
    try:
        yield
    finally:
        _REFUSED.reset(token)
        with _LOCK:
            _entered -= 1
            if not _entered:
                _restore()


_saving_hook = checkpoint._checkpoint_hook
_reentrant = checkpoint.CheckpointFunction.apply


def _replace() -> None:
    checkpoint._checkpoint_hook = _guarded(_saving_hook)  # type: ignore[misc]
    checkpoint.CheckpointFunction.apply = staticmethod(_guarded(_reentrant))


def _restore() -> None:
    checkpoint._checkpoint_hook = _saving_hook  # type: ignore[misc]
    del checkpoint.CheckpointFunction.apply


def _guarded(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if _REFUSED.get():
            raise ConfigError(REFUSAL)
        return function(*args, **kwargs)

    return call
