"""Checks of a learner, whether it is built from a pipeline or in Python."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence

from metaflowkit.config.schema import nearest
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.safety import lost_hooks, unsafe
from metaflowkit.errors import ConfigError
from metaflowkit.rules.base import is_native
from metaflowkit.rules.higher_optimizer import HIGHER_ENGINE_ONLY


def matching(names: Sequence[str], patterns: Iterable[str], locate: Callable[[int], str]) -> frozenset[str]:
    """The names that match one of the patterns; the name of a module stands for all of its parameters.

    Args:
        names: of parameters.
        patterns: such as ``head`` or ``backbone.blocks.*.conv.weight``.
        locate: the location of the pattern with this index, for messages.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    matches: set[str] = set()
    for i, pattern in enumerate(patterns):
        if not (matched := [*fnmatch.filter(names, pattern), *fnmatch.filter(names, f"{pattern}.*")]):
            raise ConfigError(f"{locate(i)}: matches no parameter, got {pattern!r}; {nearest(pattern, [*_modules(names), *names])}")
        matches.update(matched)
    return frozenset(matches)


def _modules(names: Sequence[str]) -> list[str]:
    """The modules that hold the parameters of these names."""
    return list(dict.fromkeys(".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)))


def engine_problems(learner: MetaLearner) -> list[str]:
    """Why the learner's engine must not run its model and rule, one line each."""
    model, engine = learner.model, learner.engine
    if is_native(learner.rule) and not engine.takes_native:
        return [HIGHER_ENGINE_ONLY]
    return unsafe(model, engine.batches, learner.order.second) + lost_hooks(model, forward=not engine.calls_hooks)
