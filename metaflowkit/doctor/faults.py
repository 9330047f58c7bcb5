"""What an exception from torch or from a user's module means, and what to do about it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import higher
import torch

_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch, higher)) + (str(Path(__file__).parents[1]),)
_CHECKPOINT = "torch.utils.checkpoint"

# parts of torch's messages, what they mean and what to do
_MEANINGS = (
    (
        ("modified by an inplace operation", "is being used in an in-place operation"),
        "a module changes a tensor in place that the backward pass needs; write it without in-place operations (inplace=False, x = x + y for x += y)",
    ),
    (
        ("use_reentrant=True", "Checkpointing is not compatible", "torch.utils.checkpoint", "recomputed values"),
        "activation checkpointing inside the model cannot be differentiated twice; take it out of the model and set inner.remat: true, which computes whole steps again",
    ),
    (
        ("is not implemented", "once_differentiable", "not differentiable", "does not support double backward", "double backward"),
        "an operation has no second derivative; replace it by one that has, or choose inner.order: first",
    ),
    (
        ("through the graph a second time", "Trying to access the saved tensors", "support the deepcopy protocol"),
        "a module keeps a tensor with its graph from an earlier call; compute it anew in every forward, or detach it",
    ),
    (
        ("does not require grad",),
        "the loss or the objective is cut off from the parameters; see that nothing between them is detached or computed under no_grad",
    ),
)


def meaning(error: BaseException) -> str:
    """An exception in one line: its meaning where it is known, its message, and where in the user's code it was raised."""
    explanation = next((meaning for words, meaning in _MEANINGS if isinstance(error, RuntimeError) and any(word in str(error) for word in words)), "")
    original = f"{type(error).__name__}: {first_line(error)}{location(error)}"
    return f"{explanation} ({original})" if explanation else original


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return next(iter(str(error).splitlines()), "no message").rstrip(".")


def location(error: BaseException) -> str:
    """`` at file:line`` of the innermost call outside torch, higher and this package, with a space before it; empty where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((*_LIBRARIES, "<"))]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


@contextmanager
def checkpoints_noted() -> Iterator[list[str]]:
    """Within this context every use of torch's activation checkpointing is noted as ``file:line`` of its caller."""
    places: list[str] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or frame.f_globals.get("__name__") != _CHECKPOINT:
            return
        caller = frame.f_back
        while caller and caller.f_code.co_filename.startswith((_LIBRARIES[0], "<")):
            caller = caller.f_back
        if caller:
            places.append(f"{caller.f_code.co_filename}:{caller.f_lineno}")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield places
    finally:
        sys.setprofile(before)
