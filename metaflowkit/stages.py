"""Stages that may take long, such as reading images: what displays a run is told of those that last more than two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

AFTER, EVERY = 2.0, 10.0  # seconds until a stage is told, and between two tellings
Tell = Callable[[str], object]

_TELL: ContextVar[Tell | None] = ContextVar("tell", default=None)  # stages are deep inside calls that know no display


@contextmanager
def telling(tell: Tell | None) -> Iterator[None]:
    """Within this context long stages are told to this function, a line each time; None tells nobody."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


@contextmanager
def stage(name: str, total: int = 0) -> Iterator[Callable[[], None]]:
    """A stage that may take long.

    Args:
        name: what is done, such as ``reading 12,800 images``.
        total: of its parts; 0 where it has none, which is told by a thread of its own.

    Yields:
        A function to be called after each part, from any thread.
    """
    tell = _TELL.get()
    if tell is None:
        yield lambda: None
        return
    teller = _Teller(name, total, tell)
    thread = threading.Thread(target=teller.watch, daemon=True) if not total else None
    if thread is not None:
        thread.start()
    try:
        yield teller.advance
    finally:
        teller.over.set()
        if thread is not None:
            thread.join()
    teller.end()


class _Teller:
    """A stage, how far it is, and when it was last told."""

    def __init__(self, name: str, total: int, tell: Tell) -> None:
        self.name, self.total, self.tell = name, total, tell
        self.start = time.monotonic()
        self.next, self.done, self.told = self.start + AFTER, 0, False
        self.lock, self.over = threading.Lock(), threading.Event()

    def advance(self) -> None:
        """Another part is done."""
        with self.lock:
            self.done += 1
            if self.total and self.done < self.total and time.monotonic() >= self.next:
                self._say(f"{self.name}: {100 * self.done // self.total} %")

    def watch(self) -> None:
        """Tell of the stage until it is over."""
        while not self.over.wait(max(0.0, self.next - time.monotonic())):
            self._say(f"{self.name} ...")

    def end(self) -> None:
        """Tell how long it took, where it was told before."""
        if self.told:
            self.tell(f"{self.name}: done after {time.monotonic() - self.start:.0f} s")

    def _say(self, text: str) -> None:
        self.tell(text)
        self.told, self.next = True, time.monotonic() + EVERY
