"""``mfk run``."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json
from metaflowkit.config.files import VERIFY_VARIABLE
from metaflowkit.distributed.processes import TIMEOUT, is_restartable, joined, launched
from metaflowkit.distributed.world import World
from metaflowkit.errors import ConfigError, RunError
from metaflowkit.stages import telling


@click.command(
    epilog=examples(
        "mfk run pipelines/quickstart.yaml",
        "mfk run pipelines/quickstart.yaml --set objective.delta=2 --set seed=1",
        "mfk run --run-dir runs/mine --resume",
        "mfk run pipelines/quickstart.yaml --nproc 2",
    )
)
@click.argument("pipeline", required=False, type=click.Path(path_type=Path))
@overriding
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where to write; by default runs/<pipeline>-<time>.")
@click.option("--resume", is_flag=True, help="Resume the run in --run-dir with its stored pipeline; PIPELINE and --set, if given, must agree with it.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --run-dir.")
@click.option(
    "--nproc", type=click.IntRange(1), help="Share the tasks among so many processes on this machine; by default one, or those that torchrun has started."
)
@click.option(
    "--max-restarts",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="With --nproc: how often to go on from the last checkpoint after a process has failed.",
)
@click.option(
    "--timeout", type=click.FloatRange(1), default=TIMEOUT, show_default=True, help="Seconds that a process waits for another one before the run ends."
)
@click.option("--verify", is_flag=True, help="Read all files of the data set to see whether they have changed, instead of trusting sizes and times.")
@click.option("--quiet", is_flag=True, help="Print nothing but the report; so does --json.")
@as_json
def run(
    pipeline: Path | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    nproc: int | None,
    max_restarts: int,
    timeout: float,
    verify: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train PIPELINE, keep its best weights, and evaluate them on test classes."""
    if max_restarts and nproc is None:
        raise ConfigError("--max-restarts: needs --nproc; add it, or give --max-restarts to torchrun, before -m")
    if verify:
        os.environ[VERIFY_VARIABLE] = "1"
    flags = {"--resume": resume, "--overwrite": overwrite, "--quiet": quiet, "--json": as_json}
    if nproc is not None:
        sys.exit(_launch(pipeline, overrides, run_dir, nproc, max_restarts, timeout, [flag for flag, given in flags.items() if given]))
    with joined(timeout) as world, telling(None) if world.rank else nullcontext():
        _run(world, pipeline, overrides, run_dir, resume, overwrite, quiet or as_json, as_json)


def _run(
    world: World, pipeline: Path | None, overrides: tuple[str, ...], run_dir: Path | None, resume: bool, overwrite: bool, quiet: bool, as_json: bool
) -> None:
    """The run, in this process and those it shares the tasks with."""
    from metaflowkit.config.pipeline import read

    with world.together():
        path, run_dir = _located(pipeline, run_dir, resume)
        if run_dir is None and is_restartable():
            raise ConfigError("--max-restarts: a restart would not find the run; name its directory with --run-dir")
        definition = read(path, overrides)
    with loading():
        from metaflowkit.reporting.terminal import choose_progress
        from metaflowkit.reporting.train import train

    report = train(definition, run_dir, resume, overwrite, choose_progress(quiet), world=world)
    if world.first and as_json:
        say_json(report.plain())
    elif world.first:
        say("\n".join(["", *report.lines()]))


def _located(pipeline: Path | None, run_dir: Path | None, resume: bool) -> tuple[Path, Path | None]:
    """The pipeline's file and the run directory."""
    if resume and run_dir is None:
        if pipeline is None or not pipeline.is_dir():
            raise ConfigError("--resume: needs the run to go on with; add --run-dir runs/...")
        pipeline, run_dir = None, pipeline
    if pipeline is None:
        if run_dir is None or not resume:
            raise ConfigError("mfk run: needs a pipeline file; name one, or the run to go on with by --run-dir and --resume")
        pipeline = run_dir / "pipeline.yaml"
        if not pipeline.is_file():
            raise RunError(f"{run_dir}: holds no run to resume; name its directory with --run-dir, or give the pipeline file to start it")
    return pipeline, run_dir


def _launch(pipeline: Path | None, overrides: tuple[str, ...], run_dir: Path | None, processes: int, restarts: int, timeout: float, flags: list[str]) -> int:
    """Start the processes, each with this command but for ``--nproc``; what the pipeline's text alone shows to be wrong is said before."""
    from metaflowkit.config.pipeline import read
    from metaflowkit.distributed.launch import launch
    from metaflowkit.training.run_directory import default_folder

    if launched():
        raise ConfigError("--nproc: these processes were started by a launcher such as torchrun; leave it out, or leave the launcher out")
    path, run_dir = _located(pipeline, run_dir, "--resume" in flags)
    definition = read(path, overrides)
    settings = [word for override in overrides for word in ("--set", override)]
    folder = run_dir if run_dir is not None else default_folder(definition)
    return launch(processes, ["run", str(path), *settings, "--run-dir", str(folder), "--timeout", f"{timeout:g}", *flags], restarts)
