"""A table of metrics."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.config.yaml import write_atomic
from metaflowkit.training.events import Event, Finished, Saved, Started
from metaflowkit.training.metric_log import MetricLog


@METRIC_LOGGERS.register("csv")
class CSV:
    """A table ``metrics.csv`` in the run directory: a row for each step that has metrics, a column for each metric; written whenever the run is saved."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def log(self, event: Event) -> None:
        """Write the table where the run is saved or finished."""
        if isinstance(event, Started):
            self.folder = event.folder
        if isinstance(event, Saved | Finished) and self.folder is not None:
            rows: dict[int, dict[str, object]] = {}
            for line in MetricLog(self.folder / "metrics.jsonl").read():
                rows.setdefault(line["step"], {}).update(line)
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows.values() for key in row)), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
            write_atomic(self.folder / "metrics.csv", text.getvalue().encode())
