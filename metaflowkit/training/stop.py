"""A request to end a run."""

from __future__ import annotations

from dataclasses import dataclass

from metaflowkit.errors import Interrupted
from metaflowkit.training import checkpoint
from metaflowkit.training.metric_log import resume_command
from metaflowkit.training.run_directory import Run


@dataclass
class Stop:
    """A request to end a run after the current step.

    Attributes:
        requested: the origin of the request, such as SIGINT; None without one.
    """

    requested: str | None = None

    def ask(self, name: str) -> None:
        """Request it; a second request does not wait for the step's end.

        Raises:
            KeyboardInterrupt: the second time.
        """
        if self.requested:
            raise KeyboardInterrupt
        self.requested = name

    def at_once(self, run: Run) -> Interrupted:
        """The exception of a run that ended before the step did."""
        steps = [int(path.stem.removeprefix("step-")) for path in checkpoint.saved(run.checkpoints)]
        saved = f"all is saved up to step {steps[-1]} and what came after it is lost" if steps else "nothing is saved yet"
        return Interrupted(
            f"{run.folder}: stopped at once by {self.requested or 'SIGINT'}, {saved}; go on with {resume_command(run.folder)}",
            self.requested,
        )
