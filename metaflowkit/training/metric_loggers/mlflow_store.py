"""MLflow's tracking store."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any

from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.config.types import leaves
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import require_extra
from metaflowkit.training.events import Event, Finished, Started, Stepped
from metaflowkit.training.metric_loggers.scalars import scalars

STATE = "mlflow.json"
WAITING = 800  # metrics, beyond which they are sent before the next validation; MLflow takes at most 1,000 at once
LONGEST = 500  # letters of a parameter's value that MLflow keeps in every store


@METRIC_LOGGERS.register("mlflow")
class MLflow:
    """A run of MLflow with the pipeline as parameters and every metric; a resumed run goes on with it. An extra: ``pip install 'metaflowkit[mlflow]'``.

    Args:
        uri: of the tracking store; null for the variable MLFLOW_TRACKING_URI, and without it the file ``mlflow.db`` in the run directory.
        experiment: its name.

    Raises:
        ValueError: MLflow is not installed.
    """

    def __init__(self, uri: str | None = None, experiment: str = "metaflowkit") -> None:
        require_extra("mlflow")
        self.uri, self.experiment = uri, experiment
        self.client: Any = None
        self.run_id = ""
        self.pending: list[Any] = []

    def log(self, event: Event) -> None:
        """Send the numbers of an event; those of outer steps are sent together whenever something is validated."""
        if isinstance(event, Started):
            self._open(event)
        measured = scalars(event)
        if measured is not None:
            from mlflow.entities import Metric

            step, metrics = measured
            self.pending += [Metric(_name(name), value, int(1000 * time.time()), step) for name, value in metrics.items()]
        if self.pending and (not isinstance(event, Stepped) or len(self.pending) > WAITING):
            self.client.log_batch(self.run_id, metrics=self.pending)
            self.pending = []
        if isinstance(event, Finished):
            for name in ("pipeline.yaml", "evaluations.jsonl"):
                self.client.log_artifact(self.run_id, str(event.run.folder / name))
            self.client.set_terminated(self.run_id)

    def _open(self, started: Started) -> None:
        """Begin a run, or go on with the one that this run directory began."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        own = f"sqlite:///{(started.folder / 'mlflow.db').resolve()}"
        uri, state = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or own, started.folder / STATE
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports the tables that it creates
        self.client = MlflowClient(tracking_uri=uri)
        if state.is_file() and (stored := json.loads(state.read_text(encoding="utf-8")))["uri"] == uri:
            self.run_id = stored["run"]
            self.client.update_run(self.run_id, status="RUNNING")
            return
        known = self.client.get_experiment_by_name(self.experiment)
        artifacts = (started.folder / "mlflow").resolve().as_uri() if uri == own else None
        experiment = known.experiment_id if known is not None else self.client.create_experiment(self.experiment, artifact_location=artifacts)
        self.run_id = self.client.create_run(experiment, run_name=started.folder.name).info.run_id
        settings = leaves(started.flow.pipeline.plain())
        self.client.log_batch(self.run_id, params=[Param(_name(key), value[:LONGEST]) for key, value in settings.items()])
        write_atomic(state, json.dumps({"uri": uri, "run": self.run_id}).encode())


def _name(text: str) -> str:
    """A name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", text)
