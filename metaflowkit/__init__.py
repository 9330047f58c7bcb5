"""metaflowkit: meta-learning through differentiable inner optimisers, described in a YAML file and run with one command.

The commands of the command line are functions here, imported when first used: :func:`read` and :func:`build` a pipeline,
:func:`train` it, :func:`load` a finished run and :func:`evaluate` its weights. Without YAML, run directory or data set, :func:`meta_learner` makes
a learner of any module and losses; :class:`Episode` is a batch of tasks; ``rules``, ``losses``, ``objectives``, ``orders`` and
``engines`` hold the components.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaflowkit import engines as engines
    from metaflowkit import losses as losses
    from metaflowkit import objectives as objectives
    from metaflowkit import orders as orders
    from metaflowkit import rules as rules
    from metaflowkit.composition.flow import build as build
    from metaflowkit.composition.from_python import learned_settings as learned_settings
    from metaflowkit.composition.from_python import meta_learner as meta_learner
    from metaflowkit.config.pipeline import pipeline_of as pipeline
    from metaflowkit.config.pipeline import read as read
    from metaflowkit.datasets.torch_datasets import image_sets as image_sets
    from metaflowkit.engines.base import MetaLearner as MetaLearner
    from metaflowkit.evaluation.adaptation import evaluate_adaptation as evaluate_adaptation
    from metaflowkit.evaluation.episodes import evaluate as evaluate
    from metaflowkit.prediction.classifier import Classifier as Classifier
    from metaflowkit.reporting.train import train as train
    from metaflowkit.training.evaluate_run import load as load
    from metaflowkit.trees import detached as detached
    from metaflowkit.types import Episode as Episode

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Episode",
    "MetaLearner",
    "build",
    "detached",
    "engines",
    "evaluate",
    "evaluate_adaptation",
    "image_sets",
    "learned_settings",
    "load",
    "losses",
    "meta_learner",
    "objectives",
    "orders",
    "pipeline",
    "read",
    "rules",
    "train",
]

_MODULES = {
    "read": "config.pipeline",
    "pipeline": "config.pipeline",
    "image_sets": "datasets.torch_datasets",
    "build": "composition.flow",
    "train": "reporting.train",
    "load": "training.evaluate_run",
    "evaluate": "evaluation.episodes",
    "evaluate_adaptation": "evaluation.adaptation",
    "meta_learner": "composition.from_python",
    "learned_settings": "composition.from_python",
    "detached": "trees",
    "Classifier": "prediction.classifier",
    "MetaLearner": "engines.base",
    "Episode": "types",
}
_FULL_NAMES = {"pipeline": "pipeline_of"}
_PACKAGES = ("engines", "losses", "objectives", "orders", "rules")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"metaflowkit.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'metaflowkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metaflowkit.{_MODULES[name]}"), _FULL_NAMES.get(name, name))
