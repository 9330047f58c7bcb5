"""TensorBoard's event files."""

from __future__ import annotations

from typing import Any

from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.training.events import Event, Finished, Saved, Started
from metaflowkit.training.metric_loggers.scalars import scalars

FOLDER = "tensorboard"


@METRIC_LOGGERS.register("tensorboard")
class TensorBoard:
    """Event files for TensorBoard in the folder ``tensorboard`` of the run directory; ``tensorboard --logdir runs`` shows those of all runs."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.writer: Any = None

    def log(self, event: Event) -> None:
        """Write the numbers of an event; of steps that a resumed run repeats, the earlier ones are dropped."""
        if isinstance(event, Started):
            self.started, self.writer = event, None
        measured = scalars(event)
        if measured is not None:
            step, metrics = measured
            if self.writer is None:
                self.writer = self._opened(step)
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
        if self.writer is not None and isinstance(event, Saved | Finished):
            self.writer.flush()
        if self.writer is not None and isinstance(event, Finished):
            self.writer.close()

    def _opened(self, step: int) -> Any:
        """A writer, from this step on."""
        from tensorboardX import SummaryWriter

        assert self.started is not None, "the first event is Started"
        writer = SummaryWriter(str(self.started.folder / FOLDER), purge_step=step, filename_suffix=f".{step:010d}")  # its own file name has whole seconds
        if step <= 1:
            writer.add_text("pipeline", "\n".join(f"    {line}" for line in self.started.flow.pipeline.to_yaml().splitlines()))
        return writer
