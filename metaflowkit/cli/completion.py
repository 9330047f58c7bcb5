"""``mfk completion``, and what the shell completes: names of shipped files, components, readouts and settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from metaflowkit.cli.base import examples
from metaflowkit.errors import MetaflowkitError

VARIABLE = "_MFK_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        'eval "$(mfk completion bash)"            in ~/.bashrc',
        'eval "$(mfk completion zsh)"             in ~/.zshrc, after compinit',
        "mfk completion fish > ~/.config/fish/completions/mfk.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, files, components and settings."""
    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(ctx.find_root().command, {}, "mfk", VARIABLE).source())


def templates(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shipped pipelines and searches."""
    from metaflowkit.config.shipped import shipped

    return [CompletionItem(name, help=file.summary) for name, file in shipped().items() if name.startswith(incomplete)]


def kinds(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Kinds of components and sections of a pipeline."""
    from metaflowkit.config.describe import SECTIONS
    from metaflowkit.config.registry import KINDS

    return [name for name in (*(kind.name for kind in KINDS.values()), *SECTIONS, "level") if name.startswith(incomplete)]


def names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The components of the kind that was given before."""
    from metaflowkit.config.registry import KINDS

    entries: Mapping[str, Any] = next((kind.entries() for kind in KINDS.values() if kind.name == ctx.params.get("kind")), {})
    return [CompletionItem(name, help=entry.summary) for name, entry in entries.items() if name.startswith(incomplete)]


def readouts(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Readouts."""
    from metaflowkit.config.registry import READOUTS

    return [CompletionItem(name, help=entry.summary) for name, entry in READOUTS.entries().items() if name.startswith(incomplete)]


def settings(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Paths of settings, and after ``=`` the components that can stand there, of the pipeline that was given, or of the defaults."""
    from metaflowkit.config.pipeline import pipeline_of, read
    from metaflowkit.config.types import choices

    pipeline = pipeline_of({"dataset": "glyphs"})
    for argument in ctx.args:  # of a command line that is not whole, click leaves its arguments here
        if Path(argument).is_file():
            with contextlib.suppress(MetaflowkitError):
                pipeline = read(argument)
    path, equals, value = incomplete.partition("=")
    if equals:
        entries = next((kind.entries(pipeline.plugins) for place, kind, _ in choices(pipeline) if place == path), {})
        return [CompletionItem(f"{path}={name}", help=entry.summary) for name, entry in entries.items() if name.startswith(value)]
    return [CompletionItem(f"{place}=") for place in _places(pipeline.plain(), "") if place.startswith(incomplete)]


def _places(node: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in node.items():
        if key == "name":
            continue
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _places(value, f"{above}{key}.")
