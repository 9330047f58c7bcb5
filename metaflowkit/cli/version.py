"""``mfk version``."""

from __future__ import annotations

import click

from metaflowkit import __version__
from metaflowkit.cli.base import examples, say


@click.command(epilog=examples("mfk version", "mfk version --all"))
@click.option("--all", "everything", is_flag=True, help="Also the versions of what it stands on, the machine and the cache: what a bug report needs.")
def version(everything: bool) -> None:
    """Print the version of metaflowkit."""
    say(f"metaflowkit {__version__}")
    if everything:
        from metaflowkit.reporting.environment import environment

        for name, text in environment().items():
            say(f"{name:<16} {text}")
