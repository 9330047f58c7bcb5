"""The choice of an engine for a model and a device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from metaflowkit.config.registry import ENGINES
from metaflowkit.engines.base import Engine, MetaLearner, Read
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import draws, hooked, recurrent, unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.rules.base import is_native
from metaflowkit.trees import Tree
from metaflowkit.types import Adaptation, Episode, Outcome, task_count

MANY = 4  # tasks from which a batch of small matrix products is faster than threads: measured on two cores with layers of 64


@dataclass(eq=False)
class AutoEngine:
    """The engines that suit a model on a device.

    Attributes:
        many: the engine for episodes of four tasks and more.
        few: the engine for episodes of fewer tasks.
        remat: whether inner steps are computed again in the backward pass while tasks run in parallel.
        description: see :class:`metaflowkit.engines.base.Engine`.
    """

    many: VectorizedEngine
    few: VectorizedEngine
    remat: bool
    description: str
    takes_native: bool = False
    calls_hooks: bool = True

    @property
    def batches(self) -> bool:
        """Whether tasks go through vmap in the engine for many tasks."""
        return self.many.batches

    @property
    def workers(self) -> int:
        """How many tasks the engine for many tasks runs in parallel."""
        return self.many.workers

    def outcome(self, learner: MetaLearner, episode: Episode) -> Outcome:
        """The outcome by the engine for this number of tasks."""
        engine = self._for(episode)
        if self.remat and learner.order.exact and min(engine.workers, task_count(episode)) > 1:
            learner = replace(learner, remat=True)
        return engine.outcome(learner, episode)

    def adapt(self, learner: MetaLearner, support: Tree, episode: Episode, read: Read | None = None) -> Adaptation:
        """Adapt by the engine for this number of tasks."""
        return self._for(episode).adapt(learner, support, episode, read)

    def _for(self, episode: Episode) -> VectorizedEngine:
        return self.many if task_count(episode) >= MANY else self.few


def simplest(rule: object) -> Engine:
    """The simplest engine that runs a rule: one task after the other."""
    return HigherEngine() if is_native(rule) else VectorizedEngine(chunk=1, workers=1)


@ENGINES.register("auto")
def auto(model: nn.Module, rule: object = None) -> Engine:
    """The fastest engine that is correct for model and rule on the device, with the reason in its description."""
    if is_native(rule):
        higher_engine = HigherEngine()
        higher_engine.description += " (its own optimisers run nowhere else)"
        return higher_engine
    obstacles = unsafe(model, vmap=True, second=False)
    on_cpu = not next(model.parameters()).is_cuda
    few = remat = False
    if hooked(model):
        chunk, reason = 1, "hooks of its modules are called for one task after the other"
    elif on_cpu and not draws(model) and _plain_layers(getattr(model, "backbone", model)):
        chunk, few, reason = 16, True, "on a CPU the small matrix products of several tasks are fewer, larger ones"
    elif on_cpu and recurrent(model) and not draws(model):
        chunk, remat, reason = 1, True, "on a CPU a task per core fills it, and recurrent steps computed again keep the memory of two down"
    elif on_cpu:
        chunk, reason = 1, "on a CPU a task per core fills it, and larger batches only take memory"
    elif obstacles:
        chunk, reason = 1, obstacles[0].partition("; ")[0]
    else:
        chunk, reason = None, "on a GPU batching over tasks saves kernel launches"
    engine = VectorizedEngine(chunk)
    return AutoEngine(engine, VectorizedEngine(1, 1) if few else engine, remat, f"{engine.description} ({reason})")


def _plain_layers(network: nn.Module) -> bool:
    """Whether all modules are torch's or this library's, and all parameters those of linear layers."""
    modules = list(network.modules())
    standard = all(type(m).__module__.startswith(("torch.nn.", "metaflowkit.")) for m in modules)
    return standard and {type(m) for m in modules if m._parameters} == {nn.Linear}
