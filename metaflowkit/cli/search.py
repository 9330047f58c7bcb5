"""``mfk search``: a file, ``show`` a study, or join one with ``--worker``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, overriding, say, say_json
from metaflowkit.errors import ConfigError
from metaflowkit.search import STORAGE_VARIABLE


class _Search(click.Group):
    """``mfk search FILE`` beside ``mfk search show STUDY``: a first argument that is no command is a search file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Search,
    no_args_is_help=True,
    epilog=examples(
        "mfk search search/quickstart.yaml",
        "mfk search search/quickstart.yaml --trials 30 --workers 4",
        "mfk search show studies/quickstart",
        "mfk search --worker studies/quickstart",
    ),
)
def search() -> None:
    """Search a space of pipelines: mfk search FILE starts or continues a study, mfk search show STUDY prints its results."""


_STORAGE = click.option("--storage", envvar=STORAGE_VARIABLE, metavar="URL", help="A database, such as postgresql://user@host/base; a journal file otherwise.")
_STUDY_DIR = click.option("--study-dir", type=click.Path(path_type=Path), help="Where to write; by default studies/<name>.")


@search.command(epilog=examples("mfk search search/quickstart.yaml"))
@click.argument("file", required=False, type=click.Path(path_type=Path))
@overriding
@_STUDY_DIR
@_STORAGE
@click.option("--trials", type=click.IntRange(1), help="Trials in all.")
@click.option("--workers", type=click.IntRange(1), help="Processes on this machine.")
@click.option("--worker", metavar="STUDY", help="Join a study: its folder, or its name with --storage.")
@click.option("--index", type=int, hidden=True)
def start(
    file: Path | None, overrides: tuple[str, ...], study_dir: Path | None, storage: str | None, worker: str | None, index: int | None, **settings: int | None
) -> None:
    """Search FILE, or continue it; with --worker, join a study as one more worker."""
    if (file is None) == (worker is None):
        raise ConfigError("mfk search: needs a search file, or --worker and a study; give one of them")
    if worker is not None:
        if overrides or any(settings.values()):
            raise ConfigError("--worker: a worker does what its study says; leave --set, --trials and --workers to the command that started it")
        _work(worker, storage, study_dir, index)
        return
    from metaflowkit.search.specification import read_search

    specification = read_search(file or Path(), overrides, **settings)
    from metaflowkit.search.launcher import run_search

    run_search(specification, study_dir or Path("studies") / specification.settings.name, storage or specification.settings.storage, say)


def _work(worker: str, storage: str | None, folder: Path | None, index: int | None) -> None:
    parent = os.getppid()
    with loading():
        from metaflowkit.search.storage import reachable
        from metaflowkit.search.study import join
        from metaflowkit.search.worker import end_with, work

    if index is not None:
        end_with(parent)

    study = join(worker, storage, folder)
    with reachable(study.location):
        work(study.search, study.queue, study.folder, index, say)


@search.command(epilog=examples("mfk search show studies/quickstart", "mfk search show studies/quickstart --json"))
@click.argument("study")
@_STORAGE
@as_json
def show(study: str, storage: str | None, as_json: bool) -> None:
    """Print the best trials of STUDY and the importance of its parameters, and write report.html, best.yaml and trials.csv."""
    from metaflowkit.search.report import conclude
    from metaflowkit.search.results import plain
    from metaflowkit.search.study import join

    joined = join(study, storage)
    lines = conclude(joined)
    if as_json:
        say_json(plain(joined))
    else:
        say("\n".join(lines))
