"""Long runs and killed runs: whether memory grows, and whether anything is lost.

    python benchmarks/soak.py memory --steps 10000 --every 10     # both engines: 10,000 outer steps, 1,000 validations
    python benchmarks/soak.py kills --training 20 --processes 15 --search 15

``memory`` trains a small bootstrapped pipeline in a process of its own for each engine and fits a line to its resident memory over the second half of the run.
``kills`` sends SIGKILL at random moments: to a run, which is resumed; to one of two processes that share a run, which restarts by itself; to a worker or to the
command of a search, which is given again. Metrics, weights and trials must equal those of runs that nothing interrupted, to the bit. Linux.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from optuna.trial import TrialState

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.config.pipeline import read
from metaflowkit.search.study import join
from metaflowkit.training.events import Validated
from metaflowkit.training.loop import events

PIPELINE: dict[str, Any] = {
    "dataset": {"name": "glyphs", "image_size": 16},
    "augment": {"level": 1},
    "tasks": {"name": "views", "way": 5, "shot": 2, "query": 1, "meta_batch": 2},
    "model": {"backbone": {"name": "conv4", "width": 4}},
    "inner": {"steps": 1},
    "objective": {"name": "bootstrapped_kl", "delta": 2},
    "outer": {"steps": 300, "reduction": "ordered"},
    "evaluate": {"every": 25, "episodes": 20, "val_episodes": 20, "query": 5, "readouts": ["prototype"]},
}
MFK = [sys.executable, "-m", "metaflowkit"]
COMPARED = ("metrics.jsonl", "evaluations.jsonl")


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def train(engine: str, steps: int, every: int) -> None:
    """Print the outer step, resident memory and open files at every validation, as JSON."""
    reuse_freed_memory()  # as mfk does
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "soak.yaml"
        path.write_text(yaml.safe_dump(PIPELINE))
        settings = [f"inner.engine={engine}", f"outer.steps={steps}", f"evaluate.every={every}", "outer.reduction=any"]
        with closing(events(read(path, settings), Path(folder) / "run")) as training:
            for event in training:
                if isinstance(event, Validated):
                    samples.append((event.step, resident(), len(os.listdir("/proc/self/fd"))))
    click.echo(json.dumps(samples))


def descendants(pid: int) -> list[int]:
    """The processes of this program that a process started, and those that they started."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and b"metaflowkit" in (entry / "cmdline").read_bytes():
                parents[int(entry.name)] = int(fields[1])
        except OSError:  # it has ended
            continue
    chosen = {pid}
    while more := {child for child, parent in parents.items() if parent in chosen} - chosen:
        chosen |= more
    return sorted(chosen - {pid})


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command whose output goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def ended(process: subprocess.Popen[bytes], log: Path, seconds: float = 600) -> None:
    """Wait for a command that must succeed."""
    if process.wait(seconds):
        raise click.ClickException(f"{log}: the command failed\n{log.read_text()[-2000:]}")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run kept."""
    model: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["model"]
    return model


def require_equal(run: Path, reference: Path) -> None:
    """Refuse a run that differs from the reference."""
    for name in COMPARED:
        if (run / name).read_bytes() != (reference / name).read_bytes():
            raise click.ClickException(f"{run}: {name} differs from that of the run that nothing interrupted")
    expected = weights(reference)
    if differing := [name for name, value in weights(run).items() if not torch.equal(value, expected[name])]:
        raise click.ClickException(f"{run}: the weights {differing[0]} differ from those of the run that nothing interrupted")


def kill_runs(kills: int, pipeline: Path, folder: Path, reference: Path, seconds: float, moments: random.Random) -> Iterator[int]:
    """Runs that are killed and resumed up to four times each, until there were so many kills; yields the kills of each finished run."""
    run, done = folder / "killed", 0
    while done < kills:
        shutil.rmtree(run, ignore_errors=True)
        here = 0
        while True:
            resumable = (run / "pipeline.yaml").is_file()
            process = start([*MFK, "run", *(["--resume"] if resumable else [str(pipeline)]), "--run-dir", str(run)], folder / "killed.log")
            if here < min(4, kills - done):
                try:
                    process.wait(moments.uniform(0, seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    here += 1
                    continue
            ended(process, folder / "killed.log")
            break
        require_equal(run, reference)
        done += here
        yield here


def kill_processes(kills: int, pipeline: Path, folder: Path, reference: Path, seconds: float, moments: random.Random) -> Iterator[int]:
    """Runs shared by two processes, of which one is killed up to three times; they restart by themselves."""
    run, done = folder / "shared", 0
    while done < kills:
        shutil.rmtree(run, ignore_errors=True)
        command = [*MFK, "run", str(pipeline), "--run-dir", str(run), "--nproc", "2", "--max-restarts", "3"]
        process, here = start(command, folder / "shared.log"), 0
        while here < min(3, kills - done):
            try:
                process.wait(moments.uniform(0.1 * seconds, 1.2 * seconds))
                break
            except subprocess.TimeoutExpired:
                if victims := descendants(process.pid):
                    os.kill(moments.choice(victims), signal.SIGKILL)
                    here += 1
        ended(process, folder / "shared.log")
        require_equal(run, reference)
        done += here
        yield here


def trial_values(study: Path) -> dict[Any, float]:
    """The value of each complete trial by its seed."""
    return {trial.params["seed"]: trial.values[0] for trial in join(str(study)).queue.trials(TrialState.COMPLETE)}


def kill_searches(kills: int, search: Path, folder: Path, expected: dict[Any, float], seconds: float, moments: random.Random) -> Iterator[int]:
    """Searches by two workers, of which one, or the command itself, is killed up to five times; a killed command is given again."""
    study, done, log = folder / "study", 0, folder / "search.log"
    command = [*MFK, "search", str(search), "--study-dir", str(study)]
    while done < kills:
        shutil.rmtree(study, ignore_errors=True)
        process, here = start(command, log), 0
        while here < min(5, kills - done):
            try:
                process.wait(moments.uniform(0.1 * seconds, 0.6 * seconds))
                break
            except subprocess.TimeoutExpired:
                victim = moments.choice([process.pid, *descendants(process.pid)])
                os.kill(victim, signal.SIGKILL)
                here += 1
                if victim == process.pid:
                    process.wait()
                    process = start(command, log)
        ended(process, log)
        if trial_values(study) != expected:
            raise click.ClickException(f"{study}: its trials have other values than those of the search that nothing interrupted")
        unfinished = join(str(study)).queue.trials(TrialState.RUNNING, TrialState.WAITING)
        if unfinished:
            raise click.ClickException(f"{study}: trial {unfinished[0].number} is neither finished nor given up")
        done += here
        yield here


@click.group(help=__doc__)
def main() -> None:
    """The two measurements."""


@main.command()
@click.option("--steps", default=10_000, show_default=True, help="Outer steps.")
@click.option("--every", default=10, show_default=True, help="Outer steps between two validations.")
@click.option("--engine", "engines", multiple=True, default=("vectorized", "higher"), show_default=True)
@click.option("--train", "child", hidden=True)
def memory(steps: int, every: int, engines: tuple[str, ...], child: str | None) -> None:
    """Resident memory over a long run."""
    if child is not None:
        train(child, steps, every)
        return
    click.echo(
        "| engine | steps | validations | MiB at the first validation | half-way | at the end | growth, MiB in 1,000 steps | open files |\n" + "|---" * 8 + "|"
    )
    for engine in engines:
        command = [sys.executable, __file__, "memory", "--steps", str(steps), "--every", str(every), "--train", engine]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        samples = np.array(json.loads(output.splitlines()[-1]))
        half = samples[len(samples) // 2 :]
        (slope, _), covariance = np.polyfit(half[:, 0], half[:, 1], 1, cov=True)
        growth = f"{1000 * slope:+.3f} ± {1000 * covariance[0, 0] ** 0.5:.3f}"
        at = " | ".join(f"{value:.0f}" for value in (samples[1, 1], half[0, 1], samples[-1, 1]))
        click.echo(f"| {engine} | {steps:,} | {len(samples) - 1:,} | {at} | {growth} | {samples[1, 2]:.0f} to {samples[-1, 2]:.0f} |")


@main.command()
@click.option("--training", default=20, show_default=True, help="Kills of a run.")
@click.option("--processes", default=15, show_default=True, help="Kills of one of two processes of a run.")
@click.option("--search", "searches", default=15, show_default=True, help="Kills of a worker, or the command, of a search.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; by default a temporary folder, removed at the end.")
def kills(training: int, processes: int, searches: int, seed: int, folder: Path | None) -> None:
    """Kill runs, processes and searches at random moments."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pipeline, search = folder / "soak.yaml", folder / "search.yaml"
        pipeline.write_text(yaml.safe_dump(PIPELINE))
        parts = {"set": {"outer.steps": 100}, "space": {"seed": list(range(5))}, "sampler": "grid", "pruner": "none", "final": {"seeds": []}}
        search.write_text(yaml.safe_dump({"pipeline": pipeline.name, **parts, "workers": 2}))
        started = time.monotonic()
        ended(start([*MFK, "run", str(pipeline), "--run-dir", str(folder / "reference"), "--overwrite"], folder / "reference.log"), folder / "reference.log")
        seconds = time.monotonic() - started
        command = [*MFK, "search", str(search), "--study-dir", str(folder / "reference_study")]
        ended(start(command, folder / "reference.log"), folder / "reference.log")
        expected, study_seconds = trial_values(folder / "reference_study"), time.monotonic() - started - seconds
        rows: list[tuple[str, Callable[..., Iterator[int]], int, Any, Path, float]] = [
            ("run, resumed", kill_runs, training, folder / "reference", pipeline, seconds),
            ("one of two processes, restarted", kill_processes, processes, folder / "reference", pipeline, seconds),
            ("worker or command of a search", kill_searches, searches, expected, search, study_seconds),
        ]
        click.echo("| killed | kills | finished | equal to the bit |\n|---|---|---|---|")
        for name, kill, count, reference, file, length in rows:
            done = list(kill(count, file, folder, reference, length, moments))
            click.echo(f"| {name} | {sum(done)} | {len(done)} | {len(done)} |")


if __name__ == "__main__":
    main()
