"""``mfk components``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import examples, say
from metaflowkit.cli.completion import kinds, names


@click.command(epilog=examples("mfk components", "mfk components objective bootstrapped_kl", "mfk components level color3"))
@click.argument("kind", required=False, shell_complete=kinds)
@click.argument("name", required=False, shell_complete=names)
@click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help="A module with components of your own; may be repeated.")
@click.option("--pipeline", type=click.Path(path_type=Path), metavar="FILE", help="A pipeline whose plugins are read.")
def components(kind: str | None, name: str | None, plugins: tuple[str, ...], pipeline: Path | None) -> None:
    """List what a pipeline can name: all kinds and sections, the components of a KIND or the keys of a section, or one of them by its NAME."""
    from metaflowkit.config.describe import describe_components
    from metaflowkit.config.pipeline import plugins_of

    for line in describe_components(kind, name, [*plugins, *(plugins_of(pipeline) if pipeline is not None else ())]):
        say(line)
