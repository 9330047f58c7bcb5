"""Signals become requests, and are given back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from metaflowkit.stopping import on_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_signal_is_a_request_by_name(number) -> None:
    before = signal.getsignal(number)
    asked: list[str] = []
    with on_stop(asked.append):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert asked == [number.name] * 2
    assert signal.getsignal(number) is before


def test_once_lets_the_second_one_do_what_it_did() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with on_stop(outer.append):
        with on_stop(inner.append, once=True):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (inner, outer) == (["SIGTERM"], ["SIGTERM"] * 2)


def test_another_thread_changes_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with on_stop(seen.append):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
