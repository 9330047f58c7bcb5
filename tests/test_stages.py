"""Long stages are told with their progress, short ones never, and nobody is told outside a display."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from metaflowkit import stages
from metaflowkit.stages import stage, telling


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stages, "time", clock)
    monkeypatch.setattr(stages, "AFTER", 2.0)
    return clock


def test_parts_are_told_after_two_seconds_then_every_ten(clock) -> None:
    said: list[str] = []
    with telling(said.append), stage("reading", 40) as advance:
        for _ in range(40):
            clock.now += 0.7
            advance()
    assert said == ["reading: 7 %", "reading: 45 %", "reading: 82 %", "reading: done after 28 s"]


def test_a_short_stage_says_nothing(clock) -> None:
    said: list[str] = []
    with telling(said.append), stage("reading", 3) as advance:
        for _ in range(3):
            clock.now += 0.6
            advance()
        clock.now += 100  # the last part is done, so there is no more to tell
    assert said == []


def test_parts_of_several_threads_are_counted_once_each(clock) -> None:
    said: list[str] = []
    with telling(said.append), stage("reading", 400) as advance, ThreadPoolExecutor(8) as pool:
        clock.now += 5
        list(pool.map(lambda _: advance(), range(399)))
        clock.now += 50
        assert len(said) == 1
    assert said[-1] == "reading: done after 55 s"


def test_a_stage_without_parts_is_told_by_a_thread_that_ends_with_it(monkeypatch) -> None:
    monkeypatch.setattr(stages, "AFTER", 0.01)
    said, told = [], threading.Event()

    def tell(text: str) -> None:
        said.append(text)
        told.set()

    before = threading.active_count()
    with telling(tell), stage("building"):
        assert told.wait(10)
    assert said[0] == "building ..."
    assert said[-1].startswith("building: done after ")
    assert threading.active_count() == before


def test_nobody_is_told_outside_a_display_and_errors_pass(clock) -> None:
    with stage("reading", 2) as advance:
        clock.now += 9
        advance()
    said: list[str] = []

    def fail() -> None:
        with telling(said.append), stage("reading", 9) as advance:
            clock.now += 9
            advance()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert said == ["reading: 11 %"]
    with telling(said.append), telling(None), stage("reading", 9) as advance:
        clock.now += 9
        advance()
    assert len(said) == 1
