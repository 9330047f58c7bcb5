"""What a measurement saves where a network's first block is computed once for each image: the same episodes with and without it.

    python benchmarks/first_block.py pipelines/quickstart.yaml
    python benchmarks/first_block.py pipelines/omniglot_bmssl_5w1s.yaml --set dataset.root=data/omniglot --set evaluate.readouts=[prototype]

Both by turns, each from nothing, so that the time of the table is part of it; the network is the untrained one. Episodes whose accuracy differs are counted: their scores are
so near each other that rounding decides.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from unittest import mock

import click

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.composition.flow import FewShotFlow, build
from metaflowkit.config.pipeline import read
from metaflowkit.evaluation import first_block
from metaflowkit.evaluation.episodes import evaluate


@click.command(help=__doc__)
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to the pipeline, such as evaluate.episodes=200.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each kind; the median and the range are shown.")
def main(pipeline: Path, overrides: tuple[str, ...], rounds: int) -> None:
    """Measure on the classes of the test, by every way and shot of the pipeline."""
    reuse_freed_memory()
    definition = read(pipeline, list(overrides))
    settings = definition.evaluate
    for way, shot in settings.settings():
        seconds: dict[str, list[float]] = {"set by set": [], "first block once": []}
        each: dict[str, tuple[float, ...]] = {}
        for _ in range(rounds):
            for name, memory in (("set by set", 0), ("first block once", first_block.MEMORY)):
                flow = build(definition, train=False)  # anew, since a table is kept with its network
                if not isinstance(flow, FewShotFlow):
                    raise click.ClickException(f"{pipeline}: its tasks are measured by themselves; choose a pipeline of few-shot tasks")
                with mock.patch.object(first_block, "MEMORY", memory):
                    started = time.perf_counter()
                    scores = evaluate(flow, "test", way, shot, settings.query, settings.episodes, settings.readouts)
                    seconds[name].append(time.perf_counter() - started)
                each[name] = tuple(value for score in scores for value in score.each)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        spread = ", ".join(f"{name} {medians[name]:.2f} s ({min(values):.2f} to {max(values):.2f})" for name, values in seconds.items())
        other = sum(a != b for a, b in zip(*each.values(), strict=True))
        ratio = medians["set by set"] / medians["first block once"]
        click.echo(
            f"{way}-way {shot}-shot, {settings.episodes} episodes: {spread}: {ratio:.2f} x as fast; accuracy differs in {other} of {len(each['set by set'])}"
        )


if __name__ == "__main__":
    main()
