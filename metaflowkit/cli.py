"""The command line. Heavy imports stand inside the commands, so that ``mfk --help`` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from metaflowkit import __version__
from metaflowkit.errors import ConfigError, Interrupted, MetaflowkitError, RunError, printable
from metaflowkit.search import STORAGE_VARIABLE


class _Group(click.Group):
    """Turns the library's errors into one message and an exit code; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MetaflowkitError as error:
            _say(f"{'' if isinstance(error, ConfigError) else 'mfk: '}{error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            _say("mfk: stopped by SIGINT before anything new was written; give the same command again", err=True)
            sys.exit(Interrupted.exit_code)


def _say(text: str, err: bool = False) -> None:
    """Print lines; names of files, classes and the like may hold any character, and what is not printable is escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def _overrides(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting, such as inner.steps=5; may be repeated.")(function)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mfk")
def main() -> None:
    """Meta-learning through differentiable inner optimisers, described in a YAML file."""


@main.command()
@click.argument("pipeline", required=False, type=click.Path(path_type=Path))
@_overrides
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where to write; by default runs/<pipeline>-<time>.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir, which knows its pipeline; with PIPELINE and --set, it must be the same one.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --run-dir.")
@click.option("--quiet", is_flag=True, help="Print nothing but the report.")
def run(pipeline: Path | None, overrides: tuple[str, ...], run_dir: Path | None, resume: bool, overwrite: bool, quiet: bool) -> None:
    """Train PIPELINE, keep its best weights, and evaluate them on test classes."""
    from metaflowkit.config.pipeline import read

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
    checked = read(pipeline, overrides)
    from metaflowkit.reporting.terminal import choose_progress
    from metaflowkit.training.loop import train

    report = train(checked, run_dir, resume, overwrite, choose_progress(quiet))
    _say("\n".join(["", *report.lines()]))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_overrides
def check(files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Check pipeline and search FILES and report every problem; needs neither data nor a GPU."""
    from metaflowkit.config.pipeline import is_search, read
    from metaflowkit.config.yaml import read_yaml

    problems: list[str] = []
    for path in files:
        try:
            if is_search(read_yaml(path)):
                from metaflowkit.search.specification import read_search

                read_search(path, overrides)
            else:
                read(path, overrides)
            _say(f"{path}: is right")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


@main.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@_overrides
def doctor(pipeline: Path, overrides: tuple[str, ...]) -> None:
    """Check the meta-gradient of PIPELINE in float64 and float32, and say what a step costs; exit 1 if something is wrong."""
    from metaflowkit.config.pipeline import read

    checked = read(pipeline, overrides)
    from metaflowkit.doctor import Verdict, conclusion, diagnose
    from metaflowkit.doctor.watching import watching

    findings = []
    with watching() as (tell, away):
        for finding in diagnose(checked, tell):
            findings.append(finding)
            with away():
                _say(str(finding))
    _say(conclusion(findings))
    sys.exit(1 if any(finding.verdict is Verdict.WRONG for finding in findings) else 0)


@main.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help="A module with components of your own; may be repeated.")
@click.option("--pipeline", type=click.Path(path_type=Path), metavar="FILE", help="A pipeline whose plugins are read.")
def components(kind: str | None, name: str | None, plugins: tuple[str, ...], pipeline: Path | None) -> None:
    """List what a pipeline can name: all kinds and sections, the components of a KIND or the keys of a section, or one of them by its NAME."""
    from metaflowkit.config.describe import describe_components
    from metaflowkit.config.pipeline import plugins_of

    for line in describe_components(kind, name, [*plugins, *(plugins_of(pipeline) if pipeline is not None else ())]):
        _say(line)


@main.command()
@click.option("--clear", is_flag=True, help="Remove the entries instead of listing them; those that are being read stay.")
@click.option("--name", metavar="TEXT", help="Only entries whose name or origin holds TEXT.")
@click.option("--unused", type=click.FloatRange(0), metavar="DAYS", help="Only entries that were not used for so many days.")
def cache(clear: bool, name: str | None, unused: float | None) -> None:
    """List the decoded images kept on disk, the last used first, or --clear them."""
    from metaflowkit.datasets.cache import report

    for line in report(clear, name or "", unused or 0.0):
        _say(line)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--way", type=click.IntRange(2), help="Classes per episode.")
@click.option("--shot", type=click.IntRange(1), help="Support images per class.")
@click.option("--query", type=click.IntRange(1), help="Query images per class.")
@click.option("--episodes", type=click.IntRange(2), help="Number of episodes.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--readout", "readouts", multiple=True, type=click.Choice(["prototype", "adapted", "logistic"]), help="May be repeated; all three by default.")
@_overrides
def evaluate(run_dir: Path, overrides: tuple[str, ...], split: str, weights: str, readouts: tuple[str, ...], **sizes: int | None) -> None:
    """Measure the few-shot accuracy of the weights in RUN and add it to the run's evaluations.jsonl."""
    from metaflowkit.training.evaluate_run import evaluate_run

    scores, protocol = evaluate_run(run_dir, overrides, split, weights, readouts or None, {k: v for k, v in sizes.items() if v is not None})
    for score in scores:
        _say(f"{score.split} {score.way}-way {score.shot}-shot {score.readout}: {score} ({score.episodes} episodes)")
    _say(f"± 95 % confidence of the mean; {protocol}")


class _Search(click.Group):
    """``mfk search FILE`` beside ``mfk search show STUDY``: what is no command is the start of a search."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@main.group(cls=_Search, no_args_is_help=True)
def search() -> None:
    """Search a space of pipelines: mfk search FILE starts or continues a study, mfk search show STUDY tells what it found."""


_STORAGE = click.option("--storage", envvar=STORAGE_VARIABLE, metavar="URL", help="A database, such as postgresql://user@host/base; a journal file otherwise.")
_STUDY_DIR = click.option("--study-dir", type=click.Path(path_type=Path), help="Where to write; by default studies/<name>.")


@search.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_overrides
@_STUDY_DIR
@_STORAGE
@click.option("--trials", type=click.IntRange(1), help="Trials in all.")
@click.option("--workers", type=click.IntRange(1), help="Processes on this machine.")
@click.option("--worker", metavar="STUDY", help="Join a study: its folder, or its name with --storage.")
@click.option("--index", type=int, hidden=True)
def start(
    file: Path | None, overrides: tuple[str, ...], study_dir: Path | None, storage: str | None, worker: str | None, index: int | None, **given: int | None
) -> None:
    """Search FILE, or continue it; with --worker, join a study as one more worker."""
    if (file is None) == (worker is None):
        raise ConfigError("mfk search: needs a search file, or --worker and a study; give one of them")
    if worker is not None:
        if overrides or any(given.values()):
            raise ConfigError("--worker: a worker does what its study says; leave --set, --trials and --workers to the command that started it")
        _work(worker, storage, study_dir, index)
        return
    from metaflowkit.search.specification import read_search

    checked = read_search(file or Path(), overrides, **given)
    from metaflowkit.search.launcher import run_search

    run_search(checked, study_dir or Path("studies") / checked.settings.name, storage or checked.settings.storage, _say)


def _work(worker: str, storage: str | None, folder: Path | None, index: int | None) -> None:
    parent = os.getppid()
    from metaflowkit.search.storage import reachable
    from metaflowkit.search.study import join
    from metaflowkit.search.worker import end_with, work

    if index is not None:
        end_with(parent)

    study = join(worker, storage, folder)
    with reachable(study.location):
        work(study.search, study.slots, study.folder, index, _say)


@search.command()
@click.argument("study")
@_STORAGE
def show(study: str, storage: str | None) -> None:
    """Print the best trials of STUDY and what mattered, and write report.html, best.yaml and trials.csv."""
    from metaflowkit.search.report import conclude
    from metaflowkit.search.study import join

    _say("\n".join(conclude(join(study, storage))))
