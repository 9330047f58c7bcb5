"""Signals become requests, and are given back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from metaflowkit.training.signals import on_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_signal_is_a_request_by_name(number) -> None:
    before = signal.getsignal(number)
    asked: list[str] = []
    with on_stop(asked.append):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert asked == [number.name] * 2
    assert signal.getsignal(number) is before


def test_a_request_that_raises_comes_out_where_the_program_is() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def refuse(name: str) -> None:
        raise KeyboardInterrupt(name)

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), on_stop(refuse):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_changes_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with on_stop(seen.append):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
