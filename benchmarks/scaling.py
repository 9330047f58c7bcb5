"""Outer steps a second of 1, 2, ... processes of one thread each that share the tasks of a step.

    python benchmarks/scaling.py pipelines/quickstart.yaml --set tasks.meta_batch=8 --processes 1 --processes 2

Each round starts every number of processes once, in turn; a step is drawing and augmenting its tasks, the meta-gradient, and the exchange of gradients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import click
import torch

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.distributed.processes import joined
from metaflowkit.training.shared_outcome import shared_outcome

WARM_UP = 3


def measure(path: Path, overrides: tuple[str, ...], steps: int) -> None:
    """Print the seconds of the median step; called in every process."""
    torch.set_num_threads(1)
    with joined() as world:
        flow = build(read(path, overrides), world=world)
        seconds = []
        for step in range(1, steps + WARM_UP + 1):
            started = time.perf_counter()
            shared_outcome(flow, flow.learner, flow.episode(step))
            seconds.append(time.perf_counter() - started)
        if world.first:
            click.echo(json.dumps(median(seconds[WARM_UP:])))


@click.command(help=__doc__)
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to the pipeline.")
@click.option("--processes", multiple=True, default=(1, 2), show_default=True, type=click.IntRange(1), help="Their number; may be repeated.")
@click.option("--steps", default=10, show_default=True, help="Measured outer steps of each.")
@click.option("--rounds", default=3, show_default=True, help="Starts of each.")
def main(pipeline: Path, overrides: tuple[str, ...], processes: tuple[int, ...], steps: int, rounds: int) -> None:
    """Print a row for each number of processes."""
    if "RANK" in os.environ:
        measure(pipeline, overrides, steps)
        return
    results: dict[int, list[float]] = {count: [] for count in processes}
    settings = [word for override in overrides for word in ("--set", override)]
    for _ in range(rounds):
        for count in processes:
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(count),
                __file__,
                str(pipeline),
                *settings,
                "--steps",
                str(steps),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            results[count].append(float(done.stdout.splitlines()[-1]))
    base = median(results[processes[0]]) * processes[0]
    click.echo("| processes | seconds a step, median (range) | steps a second against one | efficiency |\n|---|---|---|---|")
    for count, seconds in results.items():
        speed = base / median(seconds)
        click.echo(f"| {count} | {median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f}) | {speed:.2f} x | {100 * speed / count:.0f} % |")


if __name__ == "__main__":
    main()
