"""``mfk init``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from metaflowkit.cli.base import say


@click.command()
@click.argument("template", default="quickstart")
@click.argument("folder", metavar="DIR", default=".", type=click.Path(path_type=Path))
def init(template: str, folder: Path) -> None:
    """Copy the shipped pipeline or search TEMPLATE (mfk ls lists them) into DIR, to begin from.

    The schema that is written beside it lets an editor with a YAML language server complete keys and underline mistakes.
    """
    from metaflowkit.config.shipped import copy_shipped, shipped

    written = copy_shipped(template, folder)
    say(f"written: {', '.join(map(str, written))}")
    say(f"next: mfk {shipped()[template].command} {shlex.quote(str(written[0]))}")
