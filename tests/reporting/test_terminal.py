"""What a run tells: the exact lines, the bar as a terminal gets it, silence; on a clock of the test's own, so that rates and times are closed forms."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.pipeline import read
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score
from metaflowkit.reporting import terminal as module
from metaflowkit.reporting.terminal import Bar, Lines, Silent, _clock, choose_progress
from metaflowkit.reporting.train import train
from metaflowkit.types import ImageSet
from tests.small import SMALL


def images(count: int, classes: str) -> ImageSet:
    return ImageSet(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count) % len(classes), tuple(classes))


def a_flow() -> FewShotFlow:
    """A flow as far as a display looks at it: seven unlabelled training images, two and three classes."""
    learner = SimpleNamespace(engine=SimpleNamespace(description="higher (because)"))
    splits = {"val": images(4, "ab"), "test": images(6, "abc")}
    interface = SimpleNamespace(sample=None)
    return FewShotFlow(None, torch.device("cpu"), interface, learner, None, splits, stage=None, pool=7)


def score(accuracy: float, readout: str = "prototype", shot: int = 1) -> Score:
    return Score("val", FewShot(3, shot, 2, readout), ACCURACY, 4, accuracy, 0.0123)


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def walk(shown, clock: Clock, first: int, last: int, seconds: float = 1.0, count: int = 50) -> None:
    """Steps of so many seconds over so many images each; the objective is the step's hundredth."""
    for step in range(first, last + 1):
        clock.now += seconds
        shown.step(step, step / 100, count)


def test_silent_prints_nothing(capfd) -> None:
    with Silent() as shown:
        shown.start(Path("runs/x"), a_flow(), 4)
        shown.step(1, 0.5, 9)
        shown.validated(1, score(0.5))
        shown.tested("trained", [score(0.5)])
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("kind", [Silent, Lines, Bar])
def test_no_display_swallows_an_error(kind) -> None:
    with pytest.raises(KeyError, match="mine"), kind():
        raise KeyError("mine")


def test_lines_begin_with_the_run_directory_and_the_counts() -> None:
    said: list[str] = []
    Lines(said.append).start(Path("runs/x"), a_flow(), 4)
    assert said == ["run directory runs/x", "7 training images, val 2 classes, test 3 classes; cpu; engine higher (because)"]


def test_lines_print_a_validation_before_the_first_step_without_a_rate() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.start(Path("runs/x"), a_flow(), 4)
    lines.validated(0, score(0.5))
    assert said[-1].split() == ["step", "0/4", "val", "3w1s", "prototype", "50.0", "±", "1.2", "%"]


@pytest.mark.parametrize("first", [1, 901], ids=["from the start", "resumed"])
def test_lines_print_step_objective_accuracy_rate_and_time_left(clock, first) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.start(Path("runs/x"), a_flow(), 10_000)
    if first == 1:
        clock.now += 77  # the validation before the first step is no part of the rate
        lines.validated(0, score(0.1))
    walk(lines, clock, first, first + 99, seconds=0.02)
    lines.validated(first + 99, score(0.456))
    *words, rate, unit, left, end = said[-1].split()
    objective = f"{(first + 99) / 100:.4f}"
    assert words == ["step", f"{first + 99}/10000", "objective", objective, "val", "3w1s", "prototype", "45.6", "±", "1.2", "%"]
    assert (unit, end) == ("images/s", "left")
    assert float(rate.replace(",", "")) == pytest.approx(50 / 0.02, rel=0.02)
    minutes, seconds = map(int, left.split(":"))
    assert 60 * minutes + seconds == pytest.approx((10_000 - first - 99) * 0.02, rel=0.02)


def test_validation_is_no_part_of_the_rate_and_a_part_of_the_time_left(clock) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.start(Path("runs/x"), a_flow(), 6)
    lines.validated(0, score(0.1))
    for step in (1, 2, 3):
        walk(lines, clock, step, step, seconds=1.0)
        clock.now += 3
        lines.validated(step, score(0.5))
    assert said[-1].endswith("  50 images/s  0:12 left")


def test_steps_alone_print_no_line(clock) -> None:
    said: list[str] = []
    walk(Lines(said.append), clock, 1, 5)
    assert said == []


def test_lines_print_every_test_score() -> None:
    said: list[str] = []
    Lines(said.append).tested("untrained", [score(0.5), score(0.25, "adapted", shot=5)])
    assert said == ["test 3w1s prototype, untrained: 50.0 ± 1.2 %", "test 3w5s adapted, untrained: 25.0 ± 1.2 %"]


def test_lines_print_to_standard_output(capfd) -> None:
    Lines().tested("trained", [score(0.5)])
    assert tuple(capfd.readouterr()) == ("test 3w1s prototype, trained: 50.0 ± 1.2 %\n", "")


def test_a_run_tells_its_course_in_order(write, tmp_path) -> None:
    said: list[str] = []
    report = train(read(write(SMALL), ["device=cpu"]), tmp_path / "run", progress=Lines(said.append))
    place, _, *rest = said
    assert place == f"run directory {tmp_path / 'run'}"
    assert [line.split()[1] for line in rest[:3]] == ["0/4", "2/4", "4/4"]
    assert f" val 3w1s prototype {100 * report.untrained:.1f} ±" in rest[0]
    pairs = [("untrained", s) for s in report.before] + [("trained", s) for s in report.after]
    assert rest[3:] == [f"test 3w1s {s.setting.readout}, {label}: {s}" for label, s in pairs]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (61, "1:01"), (3599.4, "59:59"), (3599.6, "1:00:00"), (3661, "1:01:01"), (90_061, "25:01:01")],
)
def test_times_are_minutes_and_seconds_and_hours_where_there_are_any(seconds, text) -> None:
    assert _clock(seconds) == text


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a bar writes to a terminal 140 columns wide."""
    written = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=written, force_terminal=True, width=140)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    return written


def plain(terminal: io.StringIO) -> list[str]:
    """Its lines without control sequences, as a reader sees them one after the other."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()


def test_bar_shows_step_objective_accuracy_and_rate(terminal, clock) -> None:
    with Bar() as bar:
        bar.start(Path("runs/x"), a_flow(), 400)
        walk(bar, clock, 1, 99)
        bar.validated(99, score(0.456))
        walk(bar, clock, 100, 100)
    last = next(line for line in reversed(plain(terminal)) if line.startswith("step") and "100/400" in line)
    assert re.match(r"step +100/400 .* objective 1\.0000 val 45\.6 % ([\d,]+) images/s", last)
    assert float(re.search(r"([\d,]+) images/s", last)[1]) == pytest.approx(50, rel=0.03)


@pytest.mark.parametrize("width", [20, 30, 60, 79, 80, 119, 120, 300])
def test_a_narrow_terminal_shows_step_and_time_and_never_wraps(width, monkeypatch, clock) -> None:
    written = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=written, force_terminal=True, width=width)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    with Bar() as bar:
        bar.start(Path("runs/x"), a_flow(), 400)
        walk(bar, clock, 1, 99)
        bar.validated(99, score(0.456))
        walk(bar, clock, 100, 100)
    bars = [line for line in plain(written) if line.startswith("step") and "/400" in line and "prototype" not in line]
    assert any("100/400" in line for line in bars)
    assert all(len(line) <= width for line in bars)
    assert any("objective 1.0000 val 45.6 %" in line for line in bars) == (width >= 80)
    assert any("━" in line for line in bars) == (width >= 120)


def test_a_reader_that_has_gone_does_not_end_the_run(write, tmp_path) -> None:
    said: list[str] = []

    def put(text: str) -> None:
        if said:
            raise BrokenPipeError
        said.append(text)

    report = train(read(write(SMALL)), tmp_path / "run", progress=Lines(put))
    assert len(said) == 1
    assert report.after


def test_bar_prints_the_lines_above_itself(terminal, clock) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    with Bar() as bar:
        for shown in (lines, bar):
            clock.now = 1000.0
            shown.start(Path("runs/x"), a_flow(), 400)
            walk(shown, clock, 1, 50)
            shown.validated(50, score(0.5))
            shown.tested("trained", [score(0.75)])
    assert len(said) == 4
    assert [line.rstrip() for line in plain(terminal) if line.rstrip() in said] == said


def test_bar_prints_paths_as_they_are(terminal) -> None:
    folder = Path("runs/a[lr]b[/b]" + "c" * 150)
    with Bar() as bar:
        bar.start(folder, a_flow(), 4)
    assert f"run directory {folder}" in [line.rstrip() for line in plain(terminal)]


def test_bar_gives_the_cursor_back_after_an_error(terminal) -> None:
    bar = Bar()
    with pytest.raises(AttributeError), bar:
        bar.start(Path("runs/x"), None, 4)
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert bar.bar.live.is_started is False


@pytest.mark.parametrize(("terminal_there", "quiet", "kind"), [(True, False, Bar), (False, False, Lines), (True, True, Silent), (False, True, Silent)])
def test_the_display_follows_the_terminal_and_quiet(monkeypatch, terminal_there, quiet, kind) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal_there))
    assert type(choose_progress(quiet)) is kind
