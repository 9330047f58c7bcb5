"""Weights & Biases."""

from __future__ import annotations

import json
from typing import Any, Literal

from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import require_extra
from metaflowkit.training.events import Event, Finished, Started
from metaflowkit.training.metric_loggers.scalars import scalars

STATE = "wandb.json"


@METRIC_LOGGERS.register("wandb")
class WeightsAndBiases:
    """A run of Weights & Biases with the pipeline as configuration and every metric by outer step; a resumed run goes on with it. An extra: ``pip install 'metaflowkit[wandb]'``.

    Args:
        project: its name.
        mode: ``online`` sends to the server, ``offline`` keeps files in the run directory for ``wandb sync``.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(self, project: str = "metaflowkit", mode: Literal["online", "offline"] = "online") -> None:
        require_extra("wandb")
        self.project, self.mode = project, mode
        self.run: Any = None

    def log(self, event: Event) -> None:
        """Send the numbers of an event."""
        if isinstance(event, Started):
            self._open(event)
        measured = scalars(event)
        if measured is not None:
            step, metrics = measured
            self.run.log({"outer_step": step, **metrics})
        if isinstance(event, Finished):
            self.run.finish()

    def _open(self, started: Started) -> None:
        """Begin a run, or go on with the one that this run directory began."""
        import wandb

        state = started.folder / STATE
        known = json.loads(state.read_text(encoding="utf-8"))["run"] if state.is_file() else None
        self.run = wandb.init(
            project=self.project, name=started.folder.name, config=started.flow.pipeline.plain(), dir=str(started.folder), mode=self.mode, id=known, resume="allow"
        )  # fmt: skip
        self.run.define_metric("*", step_metric="outer_step")
        write_atomic(state, json.dumps({"run": self.run.id}).encode())
