"""What the commands share: their group, messages and options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from metaflowkit.errors import ConfigError, Interrupted, MetaflowkitError, printable


class Commands(click.Group):
    """Turns the library's errors into one message and an exit code; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command."""
        try:
            return super().invoke(ctx)
        except MetaflowkitError as error:
            say(f"{'' if isinstance(error, ConfigError) else 'mfk: '}{error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            say("mfk: stopped by SIGINT before anything new was written; give the same command again", err=True)
            sys.exit(Interrupted.exit_code)


def say(text: str, err: bool = False) -> None:
    """Print lines; names of files, classes and the like may hold any character, and what is not printable is escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def overriding(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--set``, whose values reach the command as ``overrides``."""
    return click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting, such as inner.steps=5; may be repeated.")(function)
