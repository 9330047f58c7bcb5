"""``mfk version``."""

from __future__ import annotations

import click

from metaflowkit import __version__
from metaflowkit.cli.base import as_json, examples, say, say_json


@click.command(epilog=examples("mfk version", "mfk version --all"))
@click.option("--all", "everything", is_flag=True, help="Also the versions of what it stands on, the machine and the cache: what a bug report needs.")
@as_json
def version(everything: bool, as_json: bool) -> None:
    """Print the version of metaflowkit."""
    lines = {"metaflowkit": __version__}
    if everything:
        from metaflowkit.reporting.environment import environment

        lines |= environment()
    if as_json:
        say_json(lines)
        return
    for name, text in lines.items():
        say(f"{name:<16} {text}" if everything else f"{name} {text}")
