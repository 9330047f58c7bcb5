"""What a person sees while the diagnosis computes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from metaflowkit.doctor.findings import Tell


@contextmanager
def watching() -> Iterator[Tell]:
    """Shows on standard error what is being computed: in one live line with its seconds on a terminal, in plain lines elsewhere."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda text: print(f"{time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False), console=Console(stderr=True), transient=True) as line:
        task = line.add_task("", total=None)
        yield lambda text: line.update(task, description=text)
