"""Ctrl-C and SIGTERM as requests, to which the program responds when it is ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_stop(request: Callable[[str], None]) -> Iterator[None]:
    """While this context is open, ``request`` gets the name of each SIGINT and SIGTERM; outside the main thread nothing changes.

    Args:
        request: a quick response; it may raise, such as KeyboardInterrupt, which is then raised wherever the program is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        request(signal.Signals(number).name)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
