"""What an outer step costs beyond its meta-gradient: tasks, augmentation, outer optimiser, metric log; validation left out.

python benchmarks/training_loop.py pipelines/quickstart.yaml --set augment.level=3
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.composition.device import wait_for
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.training.outer_loop import OuterLoop
from metaflowkit.training.run_directory import open_run
from metaflowkit.training.stop import Stop

NEVER = 1_000_000


class Timed:
    """Adds up the seconds that calls of an object's method take, until ``wait`` returns."""

    def __init__(self, inner: Any, method: str, wait: Callable[[], None]) -> None:
        self.inner, self.method, self.wait, self.seconds = inner, method, wait, 0.0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        return self._clocked(attribute) if name == self.method else attribute

    def _clocked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any) -> Any:
            self.wait()
            started = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.wait()
                self.seconds += time.perf_counter() - started

        return clocked


@click.command(help=__doc__)
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to the pipeline, such as augment.level=3.")
@click.option("--steps", default=30, show_default=True, help="Outer steps; the first five warm up.")
def main(pipeline: Path, overrides: tuple[str, ...], steps: int) -> None:
    """Time a few outer steps."""
    reuse_freed_memory()
    chosen = read(pipeline, [*overrides, f"outer.steps={NEVER}", f"evaluate.every={NEVER}"])
    flow = build(chosen)
    learner = Timed(flow.learner, "outcome", lambda: wait_for(flow.device))
    with tempfile.TemporaryDirectory() as folder:
        loop = OuterLoop(replace(flow, learner=learner), open_run(Path(folder) / "run", chosen, False, False), Stop(), True)
        loop.run.metric_log.rewind(0)
        whole, bare = [], []
        for _ in range(steps):
            started, learner.seconds = time.perf_counter(), 0.0
            loop.advance()
            whole.append(time.perf_counter() - started)
            bare.append(learner.seconds)
    around = statistics.median((w - b) / b for w, b in zip(whole[5:], bare[5:]))
    click.echo(f"meta-gradient {statistics.median(bare[5:]):.3f} s; around it {100 * around:.1f} % more (median of {steps - 5} steps)")


if __name__ == "__main__":
    main()
