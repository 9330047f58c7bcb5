"""How far the meta-gradient of single tasks in float32 is from that in float64, with accurate sums and with torch's own.

    python benchmarks/float32_gradients.py pipelines/quickstart.yaml --steps 50

Each of the pipeline's engines computes the meta-gradient of the same tasks, of the untrained weights and of those after some outer
steps. "torch's sums" is the same code with torch's own channels-last kernels in every normalisation; on a GPU (``--set
device=cuda``) "TensorFloat-32" is the same code with the inputs of convolutions rounded as cuDNN does by default. Where a
ReLU or a maximum changes sides by rounding the gradient jumps; such tasks are counted in the last column.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import click
import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.pipeline import read
from metaflowkit.doctor.reduced import in_double
from metaflowkit.engines import safety
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.models import batch_statistics
from metaflowkit.types import Episode, Labelled

ENGINES = {"vectorized, task by task": VectorizedEngine(1, 1), "vectorized, vmap": VectorizedEngine(), "higher": HigherEngine()}


def single_tasks(flow: Flow, count: int) -> Iterator[Episode]:
    """The first tasks of training, one at a time."""
    step = 0
    while count > 0:
        step += 1
        episode = flow.episode(step)
        for t in range(min(count, len(episode.support.x))):
            support, query = (Labelled(s.x[t : t + 1], s.y[t : t + 1]) for s in (episode.support, episode.query))
            yield episode._replace(support=support, query=query)
            count -= 1


def gradient(engine: Engine, learner: MetaLearner, task: Episode) -> Tensor:
    """All meta-gradients as one vector in float64."""
    return torch.cat([g.double().flatten() for g in engine.outcome(learner, task).gradients.values()])


def exact_gradients(learner: MetaLearner, tasks: list[Episode]) -> list[Tensor]:
    """The meta-gradient of each task in float64."""
    exact = replace(learner, model=copy.deepcopy(learner.model).double())
    return [gradient(VectorizedEngine(1, 1), exact, in_double(task)) for task in tasks]


def distances(engine: Engine, learner: MetaLearner, tasks: list[Episode], exact: list[Tensor]) -> list[float]:
    """The relative distance of each task's float32 meta-gradient from ``exact``."""
    return [((gradient(engine, learner, task) - g).norm() / g.norm()).item() for task, g in zip(tasks, exact)]


@contextmanager
def torch_sums() -> Iterator[None]:
    """Within this context normalisation is computed by torch's own channels-last kernels."""
    with patch.object(batch_statistics, "is_channels_last", lambda x: False):
        yield


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """Within this context the convolutions of a GPU round their inputs, torch's default."""
    with patch.object(safety, "exact_convolutions", nullcontext):
        yield


def advance(flow: Flow, steps: int) -> None:
    """Outer steps by the pipeline's rate with Adam, on tasks that :func:`single_tasks` does not show."""
    model = flow.learner.model
    optimizer = torch.optim.Adam(model.parameters(), lr=flow.pipeline.outer.optimizer.settings["lr"])
    for step in range(steps):
        gradients = flow.learner.outcome(flow.episode(100_000 + step)).gradients
        for name, parameter in model.named_parameters():
            parameter.grad = gradients.get(name)
        optimizer.step()


@click.command(help=__doc__)
@click.argument("pipelines", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE")
@click.option("--tasks", "count", default=12, show_default=True)
@click.option("--steps", default=50, show_default=True, help="Outer steps before the second measurement; 0 for none.")
def main(pipelines: tuple[Path, ...], overrides: tuple[str, ...], count: int, steps: int) -> None:
    """Print the table."""
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {count} single tasks; relative distance from float64: median, worst, above 1e-3")
    for path in pipelines:
        flow = build(read(path, overrides))
        learner, tasks = flow.learner, list(single_tasks(flow, count))
        for moment in ("untrained", f"after {steps} steps")[: 1 + bool(steps)]:
            if moment != "untrained":
                advance(flow, steps)
            exact = exact_gradients(learner, tasks)
            for name, engine in ENGINES.items():
                results = [distances(engine, learner, tasks, exact)]
                fault, how = (tensor_float_32, "TensorFloat-32") if flow.device.type == "cuda" else (torch_sums, "torch's sums")
                with fault():
                    results.append(distances(engine, learner, tasks, exact))
                columns = [f"{median(d):.0e} {max(d):.0e} {sum(x > 1e-3 for x in d):>3}" for d in results]
                click.echo(f"{path.stem:<22}{moment:<16}{name:<26}{columns[0]}   {how} {columns[1]}")


if __name__ == "__main__":
    main()
