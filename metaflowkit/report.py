"""The report of a run: what was learned, in words, a table and a curve."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaflowkit.errors import DataError
from metaflowkit.evaluation import Score
from metaflowkit.files import write_atomic
from metaflowkit.flow import Flow
from metaflowkit.run import Run
from metaflowkit.tasks.labelled import LabelledTasks

UNMEASURED = (
    "test accuracy was not measured, since it needs images in classes and there are no test classes; the next command measures it on a folder that has them"
)


@dataclass(frozen=True)
class Report:
    """What a finished run returns.

    Attributes:
        folder: the run directory.
        before: test scores of the untrained network.
        after: test scores of the best weights, in the same order.
        best: step and validation accuracy of the best weights.
        untrained: validation accuracy before training.
        seconds: time of this call.
        protocol: how accuracy was measured.
        following: the next command to try.
    """

    folder: Path
    before: Sequence[Score]
    after: Sequence[Score]
    best: dict[str, float] | None
    untrained: float | None
    seconds: float
    protocol: str
    following: str

    def worse(self) -> list[str]:
        """Where training lowered accuracy below that of the untrained network."""
        found = [f"{a.split} {a.way}w{a.shot}s {a.readout}: {b} -> {a}" for b, a in zip(self.before, self.after) if a.accuracy < b.accuracy]
        if self.best is not None and self.untrained is not None and self.best["accuracy"] < self.untrained:
            found.append(f"validation: {100 * self.untrained:.1f} % -> {100 * self.best['accuracy']:.1f} %")
        return found

    def lines(self) -> list[str]:
        """The last lines that ``mfk run`` prints."""
        lines = []
        if self.after:
            lines.append(f"{'test accuracy':<24}{'untrained':>16}{'trained':>18}")
            for b, a in zip(self.before, self.after):
                lines.append(f"{f'{a.way}-way {a.shot}-shot, {a.readout}':<24}{b!s:>16}  ->{a!s:>14}")
            lines.append(f"({self.after[0].episodes} episodes, ± 95 % confidence of the mean; {self.protocol})")
        else:
            lines.append(UNMEASURED)
        if self.best is not None and math.isnan(self.best["accuracy"]):
            lines.append(
                f"there are no validation classes to choose by, so the weights of step {self.best['step']}, the last, are kept; {self.seconds:.0f} s in all"
            )
        elif self.best is not None:
            lines.append(f"best validation accuracy at step {self.best['step']}; {self.seconds:.0f} s in all")
        if self.worse():
            lines.append("WARNING: training made the network WORSE than it was before the first step:")
            lines += [f"  {line}" for line in self.worse()]
            lines.append("  try fewer outer steps, a lower outer.optimizer.lr, milder augmentation, or training images of more classes")
        lines.append(f"run directory: {self.folder}")
        lines.append(f"next: {self.following}")
        return lines

    def markdown(self) -> str:
        """The report as Markdown."""
        rows = [f"| {a.way}-way {a.shot}-shot | {a.readout} | {b} | {a} |" for b, a in zip(self.before, self.after)]
        table = ["| test episodes | readout | untrained | trained |", "|---|---|---|---|", *rows] if rows else [f"{UNMEASURED}: `{self.following}`"]
        warning = ["", "**Training made the network worse:**", "", *(f"- {line}" for line in self.worse())] if self.worse() else []
        return "\n".join(["# Report", "", *table, "", self.protocol, *warning, "", "![validation accuracy](curve.png)", ""])


def write_report(
    run: Run,
    flow: Flow,
    before: Sequence[Score],
    after: Sequence[Score],
    best: dict[str, float] | None,
    untrained: float | None,
    seconds: float,
    protocol: str,
) -> Report:
    """Write ``report.md`` and ``curve.png``, add the scores to ``evaluations.jsonl``, and return the report."""
    report = Report(run.folder, before, after, best, untrained, seconds, protocol, _following(run, flow))
    labelled = [("untrained", score) for score in before] + [("best", score) for score in after]
    run.append([{"weights": weights, **score.plain(), "protocol": protocol} for weights, score in labelled])
    write_atomic(run.folder / "curve.png", _curve(run, flow))
    write_atomic(run.folder / "report.md", report.markdown().encode())
    return report


def _following(run: Run, flow: Flow) -> str:
    """A command that measures what the report does not show, on the classes there are."""
    command = f"mfk evaluate {shlex.quote(str(run.folder))}"
    for split in ("test", "val"):
        for way in (10, 2):
            with contextlib.suppress(DataError, KeyError):
                LabelledTasks(flow.splits[split], 0, way, 1, flow.pipeline.evaluate.query)
                return f"{command} --way {way} --shot 1" + (f" --split {split}" if split != "test" else "")
    channels, size, _ = flow.shape
    mode = "grey" if channels == 1 else "color"
    return f"{command} --set 'dataset={{name: folder, root: FOLDER, image_size: {size}, mode: {mode}, fractions: {{test: 1.0}}}}'"


def _curve(run: Run, flow: Flow) -> bytes:
    from matplotlib.figure import Figure

    lines = run.journal.read()
    measured = [line for line in lines if "val/accuracy" in line]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    wanted = flow.pipeline.evaluate
    way, shot = wanted.settings()[0]
    steps = [line["step"] for line in measured]
    accuracy = [100 * line["val/accuracy"] for line in measured]
    axes.errorbar(steps, accuracy, [100 * line["val/ci95"] for line in measured], marker="o", capsize=3)
    if accuracy:
        axes.axhline(accuracy[0], linestyle=":", color="grey", label="untrained")
        axes.legend()
    axes.set(xlabel="outer step", ylabel="accuracy, %", title=f"validation, {way}-way {shot}-shot ({wanted.readouts[0]})")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
