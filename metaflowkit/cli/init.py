"""``mfk init``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click

from metaflowkit.cli.base import as_json, examples, loading, say, say_json
from metaflowkit.cli.completion import templates
from metaflowkit.errors import ConfigError


@click.command(epilog=examples("mfk init", "mfk init search/quickstart studies", "mfk init --data photos"))
@click.argument("template", required=False, shell_complete=templates)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FOLDER|ZIP", help="Write a pipeline that fits these images instead: mfk init --data photos [DIR]."
)
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="With --data: how many folder levels below it name a class.")
@as_json
def init(template: str | None, folder: Path | None, data: Path | None, depth: int | None, as_json: bool) -> None:
    """Copy the shipped pipeline or search TEMPLATE (mfk ls lists them; quickstart by default) into DIR, or write a pipeline for images of one's own.

    With --data the images are looked at first: classes, sizes, colours, unreadable and repeated files. The schema that is written beside a pipeline lets an
    editor with a YAML language server complete keys and underline mistakes.
    """
    if depth is not None and data is None:
        raise ConfigError("mfk init: --depth counts the folders of --data; give that, or leave it out")
    if data is not None:
        if folder is not None:
            raise ConfigError(f"mfk init: --data writes a pipeline of its own, and takes no template, got {template!r}; leave it out")
        _for_data(data, depth, Path(template or "."), as_json)
        return
    from metaflowkit.config.shipped import copy_shipped, shipped

    name = template or "quickstart"
    written = copy_shipped(name, folder or Path("."))
    _say_written(written, shipped()[name].command, as_json)


def _for_data(data: Path, depth: int | None, folder: Path, as_json: bool) -> None:
    """Look at images, and write a pipeline that fits them."""
    with loading():
        from metaflowkit.composition.suggestion import suggest
        from metaflowkit.config.shipped import with_schema, write_new
        from metaflowkit.datasets.survey import survey

    stem = re.sub(r"[^\w.-]+", "-", data.resolve().stem) or "images"
    path = folder / f"{stem}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another folder, or remove it")
    surveyed = survey(data, depth)
    lines = [f"{data}: {surveyed.lines()[0]}", *surveyed.lines()[1:]]
    suggestion = suggest(surveyed)
    written = write_new({path: with_schema(suggestion.to_yaml(path.name, lines), path.name)})
    if not as_json:
        say("\n".join([*lines, "", *suggestion.reasons, ""]))
    _say_written(written, "run", as_json, found=lines, reasons=suggestion.reasons, unreadable=surveyed.failures)


def _say_written(written: list[Path], command: str, as_json: bool, **more: Any) -> None:
    if as_json:
        say_json({"written": list(map(str, written)), "next": f"mfk {command} {shlex.quote(str(written[0]))}", **more})
        return
    say(f"written: {', '.join(map(str, written))}")
    say(f"next: mfk {command} {shlex.quote(str(written[0]))}")
