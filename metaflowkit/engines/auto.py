"""The choice of an engine for a model and a device."""

from __future__ import annotations

from torch import nn

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.parts import Engine
from metaflowkit.engines.safety import draws, unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.inner.higher_optimizer import HigherOptimizer
from metaflowkit.registry import ENGINES


def simplest(rule: object) -> Engine:
    """The engine with the least about it that runs a rule: one task after the other."""
    return HigherEngine() if isinstance(rule, HigherOptimizer) else VectorizedEngine(chunk=1, workers=1)


@ENGINES.register("auto")
def auto(model: nn.Module, rule: object = None) -> Engine:
    """The faster engine that is right for model and rule on the device, with the reason in its description."""
    if isinstance(rule, HigherOptimizer):
        chosen = HigherEngine()
        chosen.description += " (its own optimisers run nowhere else)"
        return chosen
    obstacles = unsafe(model, vmap=True, second=False)
    on_cpu = not next(model.parameters()).is_cuda
    if on_cpu and not draws(model) and _plain_layers(getattr(model, "backbone", model)):
        chunk, reason = 16, "on a CPU the small matrix products of several tasks are fewer, larger ones"
    elif on_cpu:
        chunk, reason = 1, "on a CPU a task per core fills it, and larger batches only take memory"
    elif obstacles:
        chunk, reason = 1, obstacles[0].partition("; ")[0]
    else:
        chunk, reason = None, "on a GPU batching over tasks saves kernel launches"
    engine = VectorizedEngine(chunk)
    engine.description += f" ({reason})"
    return engine


def _plain_layers(network: nn.Module) -> bool:
    """Whether all that is computed is known, and the parameters are those of linear layers."""
    modules = list(network.modules())
    known = all(type(m).__module__.startswith(("torch.nn.", "metaflowkit.")) for m in modules)
    return known and {type(m) for m in modules if m._parameters} == {nn.Linear}
