"""The report of a run: what was learned, in words, a table and a curve."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaflowkit.composition.flow import Flow
from metaflowkit.config.choice import Choice
from metaflowkit.config.metric import Metric
from metaflowkit.config.registry import DATASETS
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import DataError
from metaflowkit.evaluation.scores import ACCURACY, AdaptationSetting, Difference, Score, paired
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.training.events import Finished
from metaflowkit.training.run_directory import Run
from metaflowkit.types import ExampleSet

UNMEASURED = "test accuracy was not measured, since there are no test classes; mfk evaluate measures it on other images, in classes, given as --set dataset=..."
ADVICE = (
    "try fewer outer steps, a lower outer.optimizer.lr, milder augmentation, another objective (mfk compare PIPELINE --vary objective=query_loss), "
    "or training images of more classes"
)


@dataclass(frozen=True)
class Report:
    """What a finished run returns.

    Attributes:
        folder: the run directory.
        before: test scores of the untrained network.
        after: test scores of the best weights, in the same order.
        best: ``step`` of the best weights, and ``value`` of their validation; of the last weights and NaN without validation.
        untrained: validation before training; None without.
        seconds: time of this call.
        protocol: how it was measured.
        following: the next command to try, or call where the pipeline was made in Python.
        validation: of the best weights and the untrained network; None where it was not measured.
    """

    folder: Path
    before: Sequence[Score]
    after: Sequence[Score]
    best: dict[str, float] | None
    untrained: float | None
    seconds: float
    protocol: str
    following: str
    validation: Difference | None = None
    metric: Metric = ACCURACY

    def differences(self) -> list[Difference | None]:
        """Trained minus untrained on the very same test episodes, in the order of the scores."""
        return [paired(b.each, a.each, a.metric) for b, a in zip(self.before, self.after)]

    def worse(self) -> list[str]:
        """Where training made the network worse than the untrained one by more than the interval of the paired difference."""
        lines = [
            f"{a.split} {a.setting.short}: {b} -> {a}, {difference}"
            for b, a, difference in zip(self.before, self.after, self.differences())
            if difference is not None and difference.worse and a.setting.aimed_at
        ]
        if self.best is not None and self.untrained is not None and self.validation is not None and self.validation.worse:
            first, last = (f"{self.metric.text(value)}{self.metric.unit}" for value in (self.untrained, self.best["value"]))
            lines.append(f"validation: {first} -> {last}, {self.validation}")
        return lines

    def lines(self) -> list[str]:
        """The last lines that ``mfk run`` prints."""
        lines = []
        if self.after:
            lines.append(f"{f'test {self.metric.name}':<24}{'untrained':>16}{'trained':>18}    difference")
            for b, a, difference in zip(self.before, self.after, self.differences()):
                lines.append(f"{a.setting!s:<24}{b!s:>16}  ->{a!s:>14}    {shown(difference)}".rstrip())
            lines.append(f"({self._reading()})")
        else:
            lines.append(UNMEASURED)
        if self.best is not None:
            lines.append(f"{self._chosen()}; {self.seconds:.0f} s in all")
        if self.worse():
            lines.append("WARNING: training made the network WORSE than it was before the first step:")
            lines += [f"  {line}" for line in (*self.worse(), ADVICE)]
        lines.append(f"run directory: {self.folder}")
        lines.append(f"next: {self.following}")
        return lines

    def plain(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "run": str(self.folder),
            "best": self.best,
            "validation_before_training": self.untrained,
            "untrained": [score.plain() for score in self.before],
            "trained": [score.plain() for score in self.after],
            "differences": [None if each is None else {"mean": each.mean, "ci95": each.ci95} for each in self.differences()],
            "protocol": self.protocol,
            "seconds": self.seconds,
        }

    def markdown(self) -> str:
        """The report as Markdown."""
        rows = [f"| {a.setting} | {b} | {a} | {shown(difference)} |" for b, a, difference in zip(self.before, self.after, self.differences())]
        table = (
            [f"| test {self.metric.name} | untrained | trained | difference |", "|---|---|---|---|", *rows, "", f"{self._compared()};"]
            if rows
            else [f"{UNMEASURED}."]
        )
        chosen = ["", f"{self._chosen()}."] if self.best is not None else []
        warning = ["", "**Training made the network worse:**", "", *(f"- {line}" for line in (*self.worse(), ADVICE))] if self.worse() else []
        curve = "training objective" if self.untrained is None else f"validation {self.metric.name}"
        return "\n".join(["# Report", "", *table, self.protocol, *chosen, *warning, "", f"![{curve}](curve.png)", ""])

    def footnotes(self) -> list[str]:
        """How the scores are to be read, and which weights they are of."""
        return [self._reading() if self.after else UNMEASURED, *([self._chosen()] if self.best is not None else [])]

    def _reading(self) -> str:
        """What the numbers of the scores are, and by which protocol they were measured."""
        return f"{self.after[0].episodes} {self.after[0].counted}, ± 95 % confidence of the mean; {self._compared()}; {self.protocol}"

    def _compared(self) -> str:
        """How the column of differences is to be read."""
        unresolved = any(difference is not None and not difference.resolved for difference in self.differences())
        one = self.after[0].counted.split()[-1].removesuffix("s")
        return f"difference: trained minus untrained, {one} by {one}" + (", unresolved where its interval contains 0" if unresolved else "")

    def _chosen(self) -> str:
        """Which weights were evaluated, and what validation says about them."""
        assert self.best is not None
        if math.isnan(self.best["value"]):
            return f"no validation classes, so the weights of the last step, {self.best['step']}, were kept"
        gain = f", {shown(self.validation)} against the untrained network" if self.validation is not None else ""
        return f"best validation {self.metric.name} at step {self.best['step']}{gain}"


def shown(difference: Difference | None) -> str:
    """A difference as tables show it; empty where there is none."""
    if difference is None:
        return ""
    return str(difference) if difference.resolved else f"{difference}, unresolved"


def report_of(finished: Finished) -> Report:
    """The report of a finished run."""
    run, flow = finished.run, finished.flow
    return Report(
        run.folder,
        finished.before,
        finished.after,
        finished.best,
        finished.untrained,
        finished.seconds,
        finished.protocol,
        following(run, flow),
        finished.validation,
        flow.pipeline.metric,
    )


def write_report(finished: Finished, report: Report) -> None:
    """Write ``report.md`` and ``curve.png`` of a finished run."""
    write_atomic(finished.run.folder / "curve.png", _curve(finished.run, finished.flow))
    write_atomic(finished.run.folder / "report.md", report.markdown().encode())


def following(run: Run, flow: Flow) -> str:
    """A command that measures what the report does not show; its classes, images and shapes are proven to be there before it is named.

    Components that are objects from Python are known to no command, but where they were made.
    """
    if flow.pipeline.from_python:
        measure = "evaluate_adaptation" if flow.measured else "evaluate"
        return f"metaflowkit.{measure}(metaflowkit.load({str(run.folder)!r})) in Python, where the pipeline was made"
    evaluate, folder = flow.pipeline.evaluate, shlex.quote(str(run.folder))
    again = f"mfk run {shlex.quote(str(run.folder / 'pipeline.yaml'))} --set seed={flow.pipeline.seed + 1}"
    if flow.measured:
        return again
    for split in ("test", "val"):
        for way in (10, 2):
            if (split, way, 1) not in [("test", *setting) for setting in evaluate.settings()] and _holds(flow.splits, split, way, evaluate.query):
                return f"mfk evaluate {folder} --way {way} --shot 1" + (f" --split {split}" if split != "test" else "")
    shape = flow.interface.shape
    if len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2]:
        height = shape[1]
        digits = Choice("digits", {"image_size": height})
        if _holds(DATASETS.build(digits).load(), "test", 5, evaluate.query):
            return f"mfk evaluate {folder} --way 5 --shot 1 --set 'dataset={{name: digits, image_size: {height}}}'"
    return again


def _holds(splits: Mapping[str, ExampleSet], split: str, way: int, query: int) -> bool:
    """Whether one-shot episodes can be drawn from a split."""
    try:
        LabelledTasks(splits[split], 0, way, 1, query)
    except (DataError, KeyError):
        return False
    return True


def _validated(flow: Flow) -> str:
    """What validation measures, for a title."""
    evaluate = flow.pipeline.evaluate
    if flow.measured:
        return str(AdaptationSetting(evaluate.shots()[0], flow.pipeline.inner.steps))
    way, shot = evaluate.settings()[0]
    return f"{way}-way {shot}-shot ({evaluate.readouts[0].name})"


def _curve(run: Run, flow: Flow) -> bytes:
    from matplotlib.figure import Figure

    lines = run.metric_log.read()
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("outer step")
    metric = flow.pipeline.metric
    key, factor = f"val/{metric.name}", 100 if metric.percent else 1
    validations = [line for line in lines if key in line]
    if validations:
        values = [factor * line[key] for line in validations]
        axes.errorbar([line["step"] for line in validations], values, [factor * line["val/ci95"] for line in validations], marker="o", capsize=3)
        axes.axhline(values[0], linestyle=":", color="grey", label="untrained")
        axes.legend()
        axes.set(ylabel=f"{metric.name}, %" if metric.percent else metric.name, title=f"validation, {_validated(flow)}")
    else:
        steps = [line for line in lines if "train/objective" in line]
        axes.plot([line["step"] for line in steps], [line["train/objective"] for line in steps])
        axes.set(ylabel="objective", title="training (there are no validation classes)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
