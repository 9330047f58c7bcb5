"""The page of one run or of several: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow, Flow, build
from metaflowkit.config.types import leaves
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import MetaflowkitError
from metaflowkit.reporting import html as frame
from metaflowkit.reporting.class_figures import DRAWS, SHOT, ShownClasses, confusion, confusion_figure, draw_classes, embedding_figures
from metaflowkit.reporting.figures import metric_figures, metric_title, validation_figure
from metaflowkit.reporting.preview import tasks_sheet
from metaflowkit.reporting.report import ADVICE, Report, shown
from metaflowkit.reporting.run_record import RunRecord, read_record, record_of
from metaflowkit.training.events import Finished
from metaflowkit.training.metric_log import resume_command
from metaflowkit.training.run_directory import Run

PAGE = "report.html"


def write_run_page(finished: Finished, report: Report) -> None:
    """Write ``report.html`` of a run that has just come to its end."""
    record = record_of(finished.run, finished.flow.pipeline, report)
    write_atomic(finished.run.folder / PAGE, page([record], {record.folder: pictures(finished.flow)}).encode())


def write_pages(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Write the page of some runs again, from their directories; they need not have come to their end.

    Pictures of tasks and of test classes need the data set of a run and a checkpoint; where one is not there, the page says so.

    Args:
        folders: run directories.
        path: of the page; None for ``report.html`` in the directory of a single run, else in the current one.

    Raises:
        RunError: a folder is no run directory, or the page cannot be written.
    """
    records = [read_record(folder) for folder in folders]
    path = path or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    write_atomic(path, page(records, {record.folder: _pictures_from_disk(record) for record in records}).encode())
    return path


def page(records: Sequence[RunRecord], images: Mapping[Path, Sequence[str]]) -> str:
    """The page.

    Args:
        records: of the runs.
        images: of each run by its folder: HTML of its tasks and test classes.
    """
    parts: list[str] = []
    if len(records) > 1:
        parts += [*_side_by_side(records), *_picture("Validation by outer step", validation_figure(records))]
    for record in records:
        of_run = [*_result(record), *_signs(record)]
        if len(records) == 1:
            parts += [*of_run, *_picture("Validation by outer step", validation_figure([record]))]
        else:
            parts += [frame.heading(f"Run {record.name}"), *of_run]
        if record.measured:
            parts += [
                frame.heading("Metrics of the outer steps"),
                frame.gallery({metric_title(name): figure for name, figure in metric_figures(record).items()}),
            ]
        parts += [*images[record.folder], *_origin(record)]
    return frame.page(records[0].name if len(records) == 1 else f"{len(records)} runs", parts)


def _side_by_side(records: Sequence[RunRecord]) -> Iterator[str]:
    """Final scores, a column for each run, and the settings in which the runs differ."""
    scores = [{f"{score.split} {score.setting}": str(score) for score in record.report.after} if record.report is not None else {} for record in records]
    settings = list(dict.fromkeys(setting for of in scores for setting in of))
    yield frame.heading("Results")
    rows = [["state", *(record.state.partition(";")[0] for record in records)], *([setting, *(of.get(setting, "") for of in scores)] for setting in settings)]
    yield frame.table(["", *(record.name for record in records)], rows)
    flat = [leaves(record.pipeline.plain()) for record in records]
    differing = [key for key in dict.fromkeys(key for of in flat for key in of) if len({of.get(key) for of in flat}) > 1]
    if differing:
        yield frame.heading("Settings that differ")
        yield frame.table(["", *(record.name for record in records)], [[key, *(of.get(key, "") for of in flat)] for key in differing])


def _result(record: RunRecord) -> Iterator[str]:
    report, metric = record.report, record.pipeline.metric
    yield frame.paragraph(record.state)
    if report is None:
        steps, values = record.series(f"val/{metric.name}")
        if steps:
            yield frame.paragraph(
                f"Validation {metric.name}: {metric.text(values[0])}{metric.unit} before training, {metric.text(values[-1])}{metric.unit} after step {steps[-1]}."
            )
        return
    if report.after:
        index = next((i for i, score in enumerate(report.after) if score.setting.aimed_at), 0)
        first, before, difference = report.after[index], report.before[index], report.differences()[index]
        gain = f" ({shown(difference)})" if difference is not None else ""
        yield frame.lead(f"{first.setting}: {first.split} {metric.name} {first}, before training {before}{gain}")
        rows = [[str(a.setting), str(b), str(a), shown(d)] for b, a, d in zip(report.before, report.after, report.differences())]
        yield frame.table([f"test {metric.name}", "untrained", "trained", "difference"], rows)
    for line in report.footnotes():
        yield frame.paragraph(line)
    if report.worse():
        yield frame.warning("Training made the network worse than it was before the first step:", [*report.worse(), ADVICE])


def _signs(record: RunRecord) -> Iterator[str]:
    if record.signs:
        yield frame.warning("Signs of failure:", [f"step {step}, {name}: {text}" for step, name, text in record.signs])


def _picture(title: str, figure: object) -> list[str]:
    return [] if figure is None else [frame.picture(title, figure)]


def _origin(record: RunRecord) -> Iterator[str]:
    """How to make the run again, and what it was made with."""
    versions = {
        "python": record.facts.get("python"),
        **(record.facts.get("versions") or {}),
        "git commit": record.facts.get("git_commit"),
        "SHA-256 of model.weights": record.facts.get("weights_sha256"),
    }
    again = f"mfk run {record.folder / 'pipeline.yaml'} --run-dir NEW" if not record.pipeline.from_python else resume_command(record.folder)
    yield frame.heading("To make it again")
    yield frame.preformatted([f"# started {record.facts.get('started', '')} by: {record.facts.get('command', '')}", again])
    yield frame.folded("Pipeline, every default written out", record.pipeline.to_yaml())
    yield frame.folded("Versions", "\n".join(f"{name} {value}" for name, value in versions.items() if value))


def _pictures_from_disk(record: RunRecord) -> list[str]:
    """The pictures of a run whose data set and weights have to be read; a paragraph that says why where they cannot be."""
    run = Run(record.folder)
    try:
        flow = build(record.pipeline)
        best = run.checkpoints / "best.pt"
        flow.model.load_state_dict(run.load_checkpoint(best if best.is_file() else run.latest_path()).model)
        return pictures(flow)
    except MetaflowkitError as error:
        return [frame.paragraph(f"No pictures of tasks and test classes: {error}")]


def pictures(flow: Flow) -> list[str]:
    """The first training task, and what the untrained and the current weights make of some test classes, where tasks are few-shot classification."""
    if not isinstance(flow, FewShotFlow):
        return []
    parts = []
    if len(flow.shape) == 3 and flow.tasks is not None:
        images = cast(FewShotFlow, build(flow.pipeline)) if flow.model.takes_features else flow
        parts += [frame.heading("The first training task"), frame.image("support and query views beside their images", tasks_sheet({"": images}, 1))]
    classes = draw_classes(flow)
    return parts if classes is None else [*parts, *_class_pictures(flow, classes)]


def _class_pictures(flow: FewShotFlow, classes: ShownClasses) -> Iterator[str]:
    features = {"untrained": _untrained_features(flow, classes), "trained": classes.features(flow)}
    counts = torch.bincount(classes.y).tolist()
    each = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    yield frame.heading("Held-out classes in the embedding")
    yield frame.gallery({f"classes, {title}": figure for title, figure in embedding_figures(classes, features).items()})
    yield frame.paragraph(
        f"{len(counts)} {classes.split} classes with {each} {flow.unit} each, embedded as one set; the two directions in which the means of these classes differ most."
    )
    if min(counts) > 1:
        shares = confusion(classes, features["trained"], str(flow.model.head.metric), flow.pipeline.evaluate.seed)
        yield frame.picture("What is taken for what", confusion_figure(classes.names, shares))
        yield frame.paragraph(
            f"Trained weights: share of a class's {flow.unit} (row, %) that lie nearest to the mean of up to {SHOT} labelled {flow.unit} of a class (column), over {DRAWS} draws."
        )


def _untrained_features(flow: FewShotFlow, classes: ShownClasses) -> Tensor:
    """The features by the weights before the first outer step; the flow keeps its own."""
    weights = {name: value.clone() for name, value in flow.model.state_dict().items()}
    try:
        flow.model.load_state_dict(flow.untrained())
        flow.calibrate(start=True)
        return classes.features(flow)
    finally:
        flow.model.load_state_dict(weights)
