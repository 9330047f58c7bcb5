"""How far a pipeline's meta-gradient is from the one in float64, in each precision that its device has.

    python benchmarks/precision.py pipelines/quickstart.yaml pipelines/sinusoid.yaml

Single tasks of the first outer steps, at the untrained weights; every precision has the same weights and tasks. ``mfk doctor`` does this for one pipeline in its own precision.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.types import first_tasks


def gradients(path: Path, overrides: tuple[str, ...], precision: str, tasks: int) -> tuple[list[Tensor], float]:
    """The meta-gradient of each task as one vector, and the seconds of one after the first."""
    flow = build(read(path, [*overrides, f"precision={precision}"]))
    vectors, seconds = [], []
    for step in range(1, tasks + 1):
        episode = first_tasks(flow.episode(step), 1)
        started = time.perf_counter()
        outcome = flow.learner.outcome(episode)
        vectors.append(torch.cat([g.double().flatten() for g in outcome.gradients.values()]).cpu())
        seconds.append(time.perf_counter() - started)
    return vectors, median(seconds[1:])


@click.command(help=__doc__)
@click.argument("pipelines", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to all of the pipelines, such as device=cuda.")
@click.option("--tasks", default=5, show_default=True, type=click.IntRange(2), help="Tasks of each.")
def main(pipelines: tuple[Path, ...], overrides: tuple[str, ...], tasks: int) -> None:
    """Print a table, a row for each pipeline and precision."""
    reuse_freed_memory()
    click.echo("| pipeline | precision | error, median | at worst | cosine, least | time, float32 = 1 |\n|---|---|---|---|---|---|")
    for path in pipelines:
        precisions = ("float32", "bf16", *(("tf32",) if torch.cuda.is_available() and "device=cpu" not in overrides else ()))
        exact, exact_seconds = gradients(path, overrides, "float64", tasks)
        measured = {precision: gradients(path, overrides, precision, tasks) for precision in precisions}
        base = measured["float32"][1]
        for precision, (vectors, seconds) in measured.items():
            errors = [((v - e).norm() / e.norm()).item() for v, e in zip(vectors, exact)]
            cosine = min(F.cosine_similarity(v, e, dim=0).item() for v, e in zip(vectors, exact))
            click.echo(f"| {path.stem} | {precision} | {median(errors):.0e} | {max(errors):.0e} | {cosine:.3f} | {seconds / base:.2f} |")
        click.echo(f"| {path.stem} | float64 | | | | {exact_seconds / base:.2f} |")


if __name__ == "__main__":
    main()
