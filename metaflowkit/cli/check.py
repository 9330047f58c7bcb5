"""``mfk check``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import examples, overriding, say
from metaflowkit.errors import ConfigError


@click.command(epilog=examples("mfk check pipelines/quickstart.yaml", "mfk check mine.yaml search.yaml"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@overriding
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
            say(f"{path}: valid")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
