"""``mfk check``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, overriding, say, say_json
from metaflowkit.errors import ConfigError


@click.command(epilog=examples("mfk check pipelines/quickstart.yaml", "mfk check mine.yaml search.yaml"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@overriding
@as_json
def check(files: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check pipeline and search FILES and report every problem; needs neither data nor a GPU."""
    from metaflowkit.config.pipeline import is_search, read
    from metaflowkit.config.yaml import read_yaml

    problems: list[str] = []
    results: list[dict[str, object]] = []
    for path in files:
        try:
            if is_search(read_yaml(path)):
                from metaflowkit.search.specification import read_search

                read_search(path, overrides)
            else:
                read(path, overrides)
            results.append({"file": path, "valid": True, "problems": []})
            if not as_json:
                say(f"{path}: valid")
        except ConfigError as error:
            results.append({"file": path, "valid": False, "problems": list(error.problems)})
            problems += error.problems
    if as_json:
        say_json(results)
    if problems:
        raise ConfigError(problems)
