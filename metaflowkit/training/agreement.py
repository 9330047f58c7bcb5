"""Whether the processes of a run have the same: before it starts, and whenever it is saved."""

from __future__ import annotations

import math
import platform
import socket
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metaflowkit import __version__
from metaflowkit.composition.flow import Flow
from metaflowkit.config.yaml import differences
from metaflowkit.distributed.world import World
from metaflowkit.errors import ConfigError, RunError
from metaflowkit.evaluation.precomputed import fingerprint
from metaflowkit.training.versions import versions
from metaflowkit.trees import tensors
from metaflowkit.types import Episode, ExampleSet, task_count

SAMPLED = 1000  # examples of a split that are compared
SHOWN = 3  # differences in a message
TOPICS = {
    "pipeline": ("another pipeline", "start all processes with the same pipeline and settings"),
    "versions": ("other versions", "install the same versions everywhere"),
    "device": ("another device", "let all processes use a GPU, or choose device: cpu"),
    "data": ("other data", "give all processes the same data"),
    "weights": ("other weights", "give all processes the same weights and components"),
}


def require_agreement(flow: Flow) -> None:
    """Compare pipeline, versions, device, data and weights of all processes.

    Raises:
        RunError: a process has others than the first one, and which; in the first process.
        ConfigError: there are more processes than tasks to share.
        EndedElsewhere: in the other processes.
    """
    world = flow.world
    if world.size == 1:
        return
    first = flow.drawn(1)
    hosts, gathered = world.gather(socket.gethostname()), world.gather(_facts(flow, first))
    with world.together():
        for rank, facts in enumerate(gathered):
            for topic, (differs, remedy) in TOPICS.items():
                if differing := differences(facts[topic], gathered[0][topic]):
                    more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
                    raise RunError(f"process {rank} on {hosts[rank]}: has {differs} than process 0: {'; '.join(differing[:SHOWN])}{more}; {remedy}")
        tasks = task_count(first)
        if tasks < world.size:
            raise ConfigError(
                f"{flow.pipeline.place('tasks')}: {world.size} processes cannot share {tasks} tasks; start at most {tasks}, or raise the tasks of an outer step"
            )


def require_same_weights(world: World, parameters: Mapping[str, Tensor]) -> None:
    """Compare the weights of all processes, each of which has taken the same outer steps.

    Raises:
        RunError: they differ, in the first process.
        EndedElsewhere: they differ, in the others.
    """
    if world.size == 1:
        return
    gathered = world.gather({name: fingerprint({name: value}) for name, value in parameters.items()})
    with world.together():
        for rank, prints in enumerate(gathered):
            if differing := [name for name, value in prints.items() if value != gathered[0][name]]:
                raise RunError(
                    f"process {rank}: its weights are no longer those of process 0, first {differing[0]}; processes must compute alike: let them have the same kind of processor, the same "
                    "number of threads, and components without a state of their own"
                )


def _facts(flow: Flow, first: Episode) -> dict[str, dict[str, Any]]:
    """What has to be the same everywhere, by topic and key; ``first`` are the tasks of the first outer step."""
    data = {f"the split {name}": _sampled(examples) for name, examples in flow.splits.items()}
    data["the first episode"] = _short({str(i): value for i, value in enumerate(tensors((first.support, first.query)))})
    return {
        "pipeline": flow.pipeline.plain(),
        "versions": {"metaflowkit": __version__, "python": platform.python_version(), **versions()},
        "device": {"device": flow.device.type},
        "data": data,
        "weights": {name: _short({name: value}) for name, value in flow.learner.meta().items()},
    }


def _sampled(examples: ExampleSet) -> str:
    """A fingerprint of a split's classes and of a thousand of its examples."""
    sample = examples.x[:: math.ceil(len(examples.x) / SAMPLED) or 1]
    return _short({f"{list(examples.x.shape)}{examples.classes}": sample})


def _short(values: dict[str, Tensor]) -> str:
    """The start of a fingerprint, for messages."""
    return fingerprint(values)[:12]
