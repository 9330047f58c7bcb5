"""What the constructors of plugins refuse, found by building them: they are imported already, and any Python may stand in them.

Built are the components whose constructors ask for nothing that only data gives, such as the shape of an example; of the others,
and of all built-in ones, the guards are read from source (:mod:`metaflowkit.config.guards`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.inspection import constructor_parameters
from metaflowkit.config.registry import Kind
from metaflowkit.config.types import Pipeline, choices


def refusals(pipeline: Pipeline) -> list[str]:
    """The problems of the components of a pipeline, each with its location."""
    if not pipeline.plugins:
        return []
    injected = {"seed": pipeline.seed, "evaluation_seed": pipeline.evaluate.seed, "steps": pipeline.outer.steps, "outer_steps": pipeline.outer.steps}
    texts = ((path, refusal(kind, choice, injected)) for path, kind, choice in choices(pipeline))
    return [f"{pipeline.place(path)}: {text}" for path, text in texts if text is not None]


def refusal(kind: Kind, choice: Choice, injected: Mapping[str, Any]) -> str | None:
    """Why a component of a plugin cannot be built with its settings; None where it can, or where it is not built without data.

    Args:
        kind: of the component.
        choice: name and settings.
        injected: arguments that the program passes, as far as they are known without data.
    """
    component = kind.classes.get(choice.name)
    if component is None or component.__module__.startswith("metaflowkit.") or kind is r.METRIC_LOGGERS:  # a logger may open a file or a connection
        return None
    if not injected.keys() >= set(constructor_parameters(component)) & set(kind.injected):
        return None
    settings = {name: value for name, value in choice.settings.items() if name not in kind.common()}
    key = (kind.name, component, repr((settings, injected)))
    if key not in _RESULTS:
        _RESULTS[key] = _attempted(kind, Choice(choice.name, settings), injected)
    return _RESULTS[key]


_RESULTS: dict[tuple[str, Callable[..., Any], str], str | None] = {}
"""By kind, component and arguments, since a pipeline is read several times and a component may be slow to build."""


def _attempted(kind: Kind, choice: Choice, injected: Mapping[str, Any]) -> str | None:
    import torch

    try:
        with torch.random.fork_rng(devices=[]):  # a module draws its weights
            kind.build(choice, **injected)
    except ValueError as error:
        return str(error)
    except Exception:  # such as that of a file which is not there: the run reports it, as checking needs no data
        return None
    return None
