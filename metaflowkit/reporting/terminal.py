"""The progress of a run: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from metaflowkit.errors import printable
from metaflowkit.training.events import Event, Started, Stepped, Tested, Validated, Warned

if TYPE_CHECKING:
    from metaflowkit.composition.flow import Flow
    from metaflowkit.evaluation.scores import Score


FACTS, BAR = 80, 40  # columns of a terminal in which objective and accuracy have room beside the step, and those of the bar


class Silent:
    """Shows nothing; the interface of the others."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the display as it is."""

    def show(self, event: Event) -> None:
        """Show an event of training."""
        match event:
            case Started(folder, flow, steps):
                self.start(folder, flow, steps)
            case Stepped(step, objective, _, examples):
                self.step(step, objective, examples)
            case Validated(step, score):
                self.validated(step, score)
            case Tested(weights, scores):
                self.tested(weights, scores)
            case Warned(step, sign, text):
                self.warned(step, sign, text)

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        """The run begins (or goes on) in ``folder``."""

    def step(self, step: int, objective: float, examples: int) -> None:
        """An outer step over ``examples`` examples is done."""

    def validated(self, step: int, score: Score) -> None:
        """The validation at a step."""

    def tested(self, label: str, scores: Sequence[Score]) -> None:
        """A test of the ``label`` (untrained or trained) network."""

    def warned(self, step: int, sign: str, text: str) -> None:
        """A sign that the run fails."""

    def stage(self, text: str) -> None:
        """A stage takes long, such as reading images."""


Progress = Silent


class Lines(Silent):
    """Plain lines, for logs: what is built, every validation, every test score."""

    def __init__(self, write: Any = None) -> None:
        self.put: Callable[[str], Any] = write or (lambda text: print(text, flush=True))
        self.examples, self.busy, self.steps, self.done, self.unit = 0, 0.0, 0, 0, "examples"
        self.origin = self.mark = time.monotonic()
        self.last = ""

    def write(self, text: str) -> None:
        """Print a line; where nobody reads any more, as after ``mfk run ... | head``, the run goes on without."""
        try:
            self.put(printable(text))
        except BrokenPipeError:
            self.put = lambda text: None

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        self.steps = steps
        self.origin = self.mark = time.monotonic()
        self.unit = flow.unit
        self.write(f"run directory {folder}")
        self.write(f"{flow.description()}; {flow.device}; engine {flow.learner.engine.description}")

    def step(self, step: int, objective: float, examples: int) -> None:
        now = time.monotonic()
        self.busy += now - self.mark
        self.mark = now
        self.examples += examples
        self.done += 1
        self.last = f" objective {objective:.4f}"

    def validated(self, step: int, score: Score) -> None:
        self.mark = time.monotonic()
        if not self.done:
            self.origin = self.mark
        remaining = (self.steps - step) * (self.mark - self.origin) / max(self.done, 1)
        rate = f"  {self.rate():,.0f} {self.unit}/s  {_clock(remaining)} left" if self.done else ""
        self.write(f"step {step}/{self.steps}{self.last}  val {score.setting.short} {score}{rate}")

    def rate(self) -> float:
        """Examples or tasks per second, without validation."""
        return self.examples / max(self.busy, 1e-9)

    def tested(self, label: str, scores: Sequence[Score]) -> None:
        for score in scores:
            self.write(f"test {score.setting.short}, {label}: {score}")

    def warned(self, step: int, sign: str, text: str) -> None:
        self.write(f"WARNING at step {step}, {sign}: {text}")

    def stage(self, text: str) -> None:
        self.write(text)


class Bar(Lines):
    """rich's live bar with step, objective, validation, examples per second and time left; lines above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress()
        width = self.bar.console.width
        facts = [TextColumn("{task.fields[facts]}")] if width >= FACTS else []
        bar = [BarColumn()] if width >= FACTS + BAR else []
        self.bar.columns = (TextColumn("step"), MofNCompleteColumn(), *bar, *facts, TimeRemainingColumn())
        super().__init__(lambda text: self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True))
        self.validation = ""

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        super().start(folder, flow, steps)
        self.task = self.bar.add_task("run", total=steps, facts="")

    def step(self, step: int, objective: float, examples: int) -> None:
        super().step(step, objective, examples)
        self.bar.update(self.task, completed=step, facts=f"{self.last.strip()} {self.validation} {self.rate():,.0f} {self.unit}/s")

    def validated(self, step: int, score: Score) -> None:
        self.validation = f"val {score.metric.text(score.value)}{score.metric.unit}"
        super().validated(step, score)


def choose_progress(quiet: bool) -> Progress:
    """Silent when quiet, a bar on a terminal, lines elsewhere."""
    if quiet:
        return Silent()
    return Bar() if sys.stdout.isatty() else Lines()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
