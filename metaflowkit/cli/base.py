"""What the commands share: their group, messages and options."""

from __future__ import annotations

import atexit
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.config.schema import nearest
from metaflowkit.distributed.world import EndedElsewhere
from metaflowkit.errors import ConfigError, Interrupted, MetaflowkitError, printable, quoted
from metaflowkit.stages import telling


class Commands(click.Group):
    """Turns the library's errors into one message and an exit code; anything else is a bug and keeps its traceback."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of this name; for an unknown one the nearest is offered."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = f"start it with mfk run {name}" if name.endswith((".yaml", ".yml")) else nearest(name, self.commands)
            raise ConfigError(f"mfk: there is no command {quoted(name)}; {hint} (mfk --help lists all)")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command."""
        reuse_freed_memory()
        atexit.register(gc.freeze)  # or the interpreter, when it ends, would look for garbage among all that torch consists of: 0.7 s
        try:
            with telling(lambda text: say(text, err=True)):
                return super().invoke(ctx)
        except EndedElsewhere as error:
            sys.exit(error.exit_code)
        except MetaflowkitError as error:
            say(f"{'' if isinstance(error, ConfigError) else 'mfk: '}{error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            say("mfk: stopped by SIGINT before anything new was written; give the same command again", err=True)
            sys.exit(Interrupted.exit_code)


@contextmanager
def loading() -> Iterator[None]:
    """Within this context a command imports what it needs.

    Garbage is not collected meanwhile, nor looked for among what was imported by later collections: an import of torch allocates so many objects, all of which
    stay, that the search took a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not gc.get_freeze_count():  # once in a process: garbage of earlier commands would stay as well
            gc.freeze()


def say(text: str, err: bool = False) -> None:
    """Print lines; names of files, classes and the like may hold any character, and what is not printable is escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def say_json(value: Any) -> None:
    """Print a result as JSON; what is no number there (NaN, infinity) becomes null."""
    click.echo(json.dumps(_finite(value), indent=1, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--json``, which reaches the command as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def examples(*commands: str) -> str:
    """The end of a command's help: examples, a line each."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def overriding(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--set``, whose values reach the command as ``overrides``."""

    def settings(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
        from metaflowkit.cli.completion import settings as completed

        return completed(ctx, parameter, incomplete)

    return click.option(
        "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting, such as inner.steps=5; may be repeated.", shell_complete=settings
    )(function)
