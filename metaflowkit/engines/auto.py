"""The choice of an engine for a model and a device."""

from __future__ import annotations

from torch import nn

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.parts import Engine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.registry import ENGINES


@ENGINES.register("auto")
def auto(model: nn.Module) -> Engine:
    """The faster engine that is right for the model on its device, with the reason in its description."""
    if next(model.buffers(), None) is not None:
        return _because(HigherEngine(), "the model keeps buffers, which vmap cannot update")
    if next(model.parameters()).is_cuda:
        return _because(VectorizedEngine(), "on a GPU batching over tasks saves kernel launches")
    return _because(VectorizedEngine(chunk=1), "on a CPU convolutions of one task fill the cores and larger batches only take memory")


def _because(engine: Engine, reason: str) -> Engine:
    engine.description += f" ({reason})"
    return engine
