"""metaflowkit: meta-learning through differentiable inner optimisers, described in a YAML file and run with one command.

What the command line does are functions here, imported when first used: :func:`read` and :func:`build` a pipeline, :func:`train`
it, :func:`load` a run again and :func:`evaluate` its weights.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaflowkit.composition.flow import build as build
    from metaflowkit.config.pipeline import read as read
    from metaflowkit.evaluation.episodes import evaluate as evaluate
    from metaflowkit.reporting.train import train as train
    from metaflowkit.training.evaluate_run import load as load

__version__ = "0.1.0"
__all__ = ["build", "evaluate", "load", "read", "train"]

_HOMES = {
    "read": "config.pipeline",
    "build": "composition.flow",
    "train": "reporting.train",
    "load": "training.evaluate_run",
    "evaluate": "evaluation.episodes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaflowkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metaflowkit.{_HOMES[name]}"), name)
