"""A whole run: training with its progress, and the report."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

from metaflowkit.composition.learner import placed
from metaflowkit.config.registry import METRIC_LOGGERS
from metaflowkit.config.types import Pipeline
from metaflowkit.distributed.world import ALONE, World
from metaflowkit.reporting import run_page
from metaflowkit.reporting.report import Report, report_of, write_report
from metaflowkit.reporting.terminal import Progress, Silent
from metaflowkit.stages import telling
from metaflowkit.training.base import MetricLogger
from metaflowkit.training.events import Finished, Started
from metaflowkit.training.loop import events
from metaflowkit.training.run_directory import Run
from metaflowkit.training.stop import Stop


def train(
    pipeline: Pipeline,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    test: bool = True,
    world: World = ALONE,
) -> Report:
    """Train, keep the best weights by validation, measure them and the untrained network on what is held out for the test, and write the report.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        run_dir: the run directory; None makes one under ``runs/``.
        resume: go on with the run in the directory.
        overwrite: replace the run in the directory.
        progress: the display for the user; None shows nothing.
        test: measure on what is held out for the test at the end.
        world: the processes that share the tasks, such as those of :func:`metaflowkit.distributed.processes.joined`; each of them makes this call.

    Returns:
        The report: run directory, scores before and after, time.

    Raises:
        ConfigError, DataError, RunError, CheckpointError, DivergenceError, Interrupted: see :func:`metaflowkit.training.loop.events`.
    """
    display, stop, folder = (progress if world.first else None) or Silent(), Stop(), None
    with world.together():
        loggers = _loggers(pipeline) if world.first else []
    with display, telling(display.stage), closing(events(pipeline, run_dir, resume, overwrite, test, stop, world)) as stream:
        try:
            for event in stream:
                if isinstance(event, Started):
                    folder = event.folder
                display.show(event)
                for logger in loggers:
                    logger.log(event)
                if isinstance(event, Finished):
                    report = report_of(event)
                    with world.together():
                        if world.first:
                            write_report(event, report)
                            run_page.write_run_page(event, report)
                    return report
        except KeyboardInterrupt:  # while something was shown
            if folder is None:
                raise
            raise stop.at_once(Run(folder)) from None
    raise AssertionError("the last event is Finished")


def _loggers(pipeline: Pipeline) -> list[MetricLogger]:
    """The further receivers of the metrics."""
    return [placed(pipeline, f"loggers.{i}", partial(METRIC_LOGGERS.build, choice)) for i, choice in enumerate(pipeline.loggers)]
