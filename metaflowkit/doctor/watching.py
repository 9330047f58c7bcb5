"""Progress of the diagnosis on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from metaflowkit.doctor.findings import Tell


@contextmanager
def watching() -> Iterator[tuple[Tell, Callable[[], AbstractContextManager[None]]]]:
    """Shows on standard error what is being computed: in one live line with its seconds on a terminal, in plain lines elsewhere.

    Gives what shows a text, and a context within which the live line is hidden, so that other output can be printed.
    """
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda text: print(f"{time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True), nullcontext
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as line:
        task = line.add_task("", total=None)

        @contextmanager
        def paused() -> Iterator[None]:
            line.stop()
            try:
                yield
            finally:
                line.start()

        yield lambda text: line.update(task, description=text), paused
