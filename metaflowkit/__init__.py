"""metaflowkit: meta-learning through differentiable inner optimisers, described in a YAML file and run with one command.

The four verbs of the command line are functions here, imported when first used: :func:`read`, :func:`build`, :func:`train`
and :func:`evaluate`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaflowkit.evaluation import evaluate as evaluate
    from metaflowkit.flow import build as build
    from metaflowkit.pipeline import read as read
    from metaflowkit.training import train as train

__version__ = "0.1.0"
__all__ = ["build", "evaluate", "read", "train"]

_HOMES = {"read": "pipeline", "build": "flow", "train": "training", "evaluate": "evaluation"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaflowkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metaflowkit.{_HOMES[name]}"), name)
