"""Peak memory of one meta-gradient against the number of pseudo-classes, on photographs of 32x32 made of noise.

    python benchmarks/ways_memory.py

Each row is measured in a process of its own: conv4-64, one task, two support views and one query view of each image (two views without inner loop).
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import click
import torch
from torch.utils.data import TensorDataset

import metaflowkit as mfk
from metaflowkit.memory import peak_memory

CASES: dict[str, dict[str, Any]] = {
    "no inner loop": {"tasks": {"shot": 1}, "inner": {"steps": 0, "loss": "task"}, "objective": "prototype_contrastive"},
    "K = 2, bootstrapped": {"inner": {"steps": 2}},
    "K = 5, bootstrapped": {"inner": {"steps": 5}},
    "K = 2, remat": {"inner": {"steps": 2, "remat": True}},
    "K = 5, remat": {"inner": {"steps": 5, "remat": True}},
}


def pipeline(case: dict[str, Any], way: int) -> Any:
    """A pipeline of a case."""
    images = TensorDataset(torch.rand(way, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return mfk.pipeline(
        {
            "dataset": mfk.image_sets(train=images),
            "augment": {"level": 3},
            "tasks": {"name": "views", "way": way, "shot": 2, "query": 1, "meta_batch": 1, **case.get("tasks", {})},
            "model": {"backbone": {"name": "conv4", "width": 64}},
            "inner": case["inner"],
            "objective": case.get("objective", {"name": "bootstrapped_kl", "delta": 2}),
        }
    )


def measured(name: str, way: int) -> float:
    """MiB that one meta-gradient takes beyond what was held before it."""
    torch.set_num_threads(1)
    flow = mfk.build(pipeline(CASES[name], way))
    episode = flow.episode(1)
    before = peak_memory(reset=True)
    flow.learner.outcome(episode)
    return (peak_memory() - before) / 2**20


@click.command(help=__doc__)
@click.option("--way", "ways", type=int, multiple=True, default=(64, 128, 256, 512), show_default=True)
@click.option("--case", "names", type=click.Choice(list(CASES)), multiple=True, default=list(CASES))
def main(ways: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Print the table."""
    click.echo(f"{'MiB':<24}" + "".join(f"{way:>8}-way" for way in ways))
    for name in names:
        cells = []
        for way in ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                cells.append(f"{pool.apply(measured, (name, way)):>12.0f}")
        click.echo(f"{name:<24}{''.join(cells)}")


if __name__ == "__main__":
    main()
