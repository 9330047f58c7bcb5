"""``mfk ls``."""

from __future__ import annotations

import click

from metaflowkit.cli.base import as_json, examples, say, say_json


@click.command(epilog=examples("mfk ls"))
@as_json
def ls(as_json: bool) -> None:
    """List the pipelines and searches that come with the package, to be copied with mfk init."""
    from metaflowkit.config.shipped import shipped

    files = shipped()
    if as_json:
        say_json([{"name": file.name, "command": file.command, "summary": file.summary, "path": file.path} for file in files.values()])
        return
    width = max(map(len, files))
    for title, command in (("pipelines, for mfk run", "run"), ("searches, for mfk search", "search")):
        say(title)
        for file in files.values():
            if file.command == command:
                say(f"  {file.name:<{width}}  {file.summary}")
    say("copy one with mfk init NAME")
