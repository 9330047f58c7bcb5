"""``mfk cache``."""

from __future__ import annotations

import click

from metaflowkit.cli.base import as_json, examples, say, say_json
from metaflowkit.errors import ConfigError


@click.command(epilog=examples("mfk cache", "mfk cache --clear --unused 30"))
@click.option("--clear", is_flag=True, help="Remove the entries instead of listing them; those that are being read stay.")
@click.option("--name", metavar="TEXT", help="Only entries whose name or origin holds TEXT.")
@click.option("--unused", type=click.FloatRange(0), metavar="DAYS", help="Only entries that were not used for so many days.")
@as_json
def cache(clear: bool, name: str | None, unused: float | None, as_json: bool) -> None:
    """List the decoded images kept on disk, the last used first, or --clear them."""
    from metaflowkit.datasets.cache import chosen, report

    if as_json:
        if clear:
            raise ConfigError("--json: lists the entries, and --clear removes them; give one of them")
        say_json([{"path": entry.path, "title": entry.title, "bytes": entry.size, "used": entry.used} for entry in chosen(name or "", unused or 0.0)])
        return
    for line in report(clear, name or "", unused or 0.0):
        say(line)
