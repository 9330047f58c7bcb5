"""How many trials an hour one and several workers finish, and what the search around the trials costs.

    python benchmarks/search_workers.py pipelines/quickstart.yaml --set outer.steps=30

Every study is the same: the pipeline with other seeds, nothing pruned, nothing trained afterwards. Studies of one worker with one
thread, one worker with a thread per core, and a worker with one thread per core alternate. A study's time is that from the start of
its first trial to the end of its last; the search's own is what one worker with one thread spends between and around its runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import yaml
from optuna.trial import TrialState

from metaflowkit.search.study import join


def measured(pipeline: Path, overrides: tuple[str, ...], trials: int, workers: int, threads: int) -> tuple[float, float]:
    """Run a study; its seconds, and those within runs."""
    with tempfile.TemporaryDirectory() as folder:
        search = {"pipeline": str(pipeline.resolve()), "space": {"seed": list(range(trials))}, "sampler": "grid", "pruner": "none", "final": {"seeds": []}}
        file = Path(folder) / "workers.yaml"
        file.write_text(yaml.safe_dump(search))
        sets = [word for override in overrides for word in ("--set", override)]
        command = [sys.executable, "-m", "metaflowkit", "search", str(file), *sets, "--study-dir", f"{folder}/study", "--workers", str(workers)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL)
        complete = join(f"{folder}/study").queue.trials(TrialState.COMPLETE)
    if len(complete) != trials:
        raise click.ClickException(f"{len(complete)} of {trials} trials are complete")
    starts, ends = ([time.timestamp() for t in complete if (time := getattr(t, name))] for name in ("datetime_start", "datetime_complete"))
    return max(ends) - min(starts), sum(t.user_attrs["seconds"] for t in complete)


@click.command(help=__doc__)
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to the pipeline, such as outer.steps=30.")
@click.option("--trials", default=8, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--cores", default=os.cpu_count(), show_default=True)
def main(pipeline: Path, overrides: tuple[str, ...], trials: int, repeats: int, cores: int) -> None:
    """Run the studies and print the table."""
    ways: dict[tuple[int, int], list[float]] = {(1, 1): [], (1, cores): [], (cores, 1): []}
    around = []
    for _ in range(repeats):
        for workers, threads in ways:
            seconds, within = measured(pipeline, overrides, trials, workers, threads)
            ways[workers, threads].append(seconds)
            if (workers, threads) == (1, 1):
                around.append(seconds / within - 1)
    reference = statistics.median(ways[1, 1])
    for (workers, threads), seconds in ways.items():
        middle = statistics.median(seconds)
        rate = f"{3600 * trials / middle:6.0f} trials/h ({min(seconds):.1f} to {max(seconds):.1f} s for {trials})"
        click.echo(f"workers {workers}, threads each {threads}: {rate}  {reference / middle:.2f} x")
    click.echo(f"the search around the runs takes {100 * statistics.median(around):.2f} % of their time (one worker, one thread)")


if __name__ == "__main__":
    main()
