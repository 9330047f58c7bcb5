"""``mfk schema``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metaflowkit.cli.base import examples, say


@click.command(epilog=examples("mfk schema -o metaflowkit.schema.json", "mfk schema --plugin my_lab -o metaflowkit.schema.json"))
@click.option("-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of the terminal.")
@click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help="A module with components of your own; may be repeated.")
def schema(path: Path | None, plugins: tuple[str, ...]) -> None:
    """Write the JSON Schema of pipelines and searches, by which editors complete keys, show what they mean and underline mistakes.

    A first line '# yaml-language-server: $schema=FILE' names it in a pipeline; mfk init writes both.
    """
    from metaflowkit.config.files import write_atomic
    from metaflowkit.config.json_schema import json_schema

    text = json.dumps(json_schema(plugins), indent=1, allow_nan=False)
    if path is None:
        click.echo(text)
    else:
        write_atomic(path, f"{text}\n".encode())
        say(f"written: {path}")
