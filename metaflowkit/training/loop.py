"""A whole run as a generator of events: the outer loop, then the tests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from metaflowkit.composition.first_task import check_first_task
from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.types import Pipeline
from metaflowkit.distributed.world import ALONE, LostProcess, World
from metaflowkit.evaluation.measurement import check_readouts, protocol
from metaflowkit.evaluation.precomputed import with_features
from metaflowkit.evaluation.scores import paired
from metaflowkit.stages import telling
from metaflowkit.training import checkpoint
from metaflowkit.training.agreement import require_agreement
from metaflowkit.training.events import Event, Finished, Started
from metaflowkit.training.metric_log import resume_command
from metaflowkit.training.outer_loop import OuterLoop
from metaflowkit.training.run_directory import Run, default_folder, hold_run, was_restarted
from metaflowkit.training.signals import on_stop
from metaflowkit.training.stop import Stop


def events(
    pipeline: Pipeline,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    test: bool = True,
    stop: Stop | None = None,
    world: World = ALONE,
) -> Generator[Event, None, None]:
    """Train, keep the best weights by validation, and measure them and the untrained network on what is held out for the test.

    A generator: the next step is taken when the next event is asked for. A caller that leaves the loop early closes it (``contextlib.closing``,
    or the end of the last reference); what is saved by then stays, and the run can be resumed.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        run_dir: where everything is written; None for ``runs/<pipeline>-<time>``.
        resume: go on with the run in ``run_dir``; the result is bit-identical to an uninterrupted run on the same machine.
        overwrite: replace the run in ``run_dir``.
        test: measure on what is held out for the test at the end; without, the examples of test classes are released before training.
        stop: the request to end the run after the current step, set by signals or by the caller; None for a new one.
        world: the processes that share the tasks; each of them makes this call, and the first alone writes.

    Yields:
        :class:`Started`, then :class:`Stepped`, :class:`Warned`, :class:`Saved` and :class:`Validated` as they come, :class:`Tested`, and :class:`Finished` at last.

    Raises:
        ConfigError, DataError, RunError, CheckpointError, EndedElsewhere: see their classes.
        DivergenceError: a value or gradient stopped being finite; the last good state is saved.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    folder = Path(world.from_first(lambda: str(run_dir if run_dir is not None else default_folder(pipeline))))
    stop = stop or Stop()
    restarted = world.from_first(lambda: was_restarted(folder))
    resume, overwrite = resume or restarted, overwrite and not restarted
    with ExitStack() as stack:
        if pipeline.outer.reduction == "ordered":
            stack.enter_context(one_thread())
        flow = _built(pipeline, test, world)
        started = time.monotonic()
        with world.together():
            run = stack.enter_context(hold_run(folder, pipeline, resume, overwrite)) if world.first else Run(folder)
        try:
            with on_stop(stop.ask):
                loop = OuterLoop(flow, run, stop, test)
                stack.callback(loop.close)
                yield Started(folder, flow, pipeline.outer.steps)
                loop.restore() if world.from_first(lambda: resume and bool(checkpoint.saved(run.checkpoints))) else loop.begin()
                yield from loop.new_events()
                while loop.step < pipeline.outer.steps:
                    with telling(None):  # a validation between steps is seen by its result
                        loop.advance()
                    yield from loop.new_events()
                    loop.check_stop()
                yield from loop.test()
        except KeyboardInterrupt:
            raise stop.at_once(run) from None
        except LostProcess as error:
            raise _lost(error, loop) from None
        yield _finished(loop, time.monotonic() - started)


def _lost(error: LostProcess, loop: OuterLoop) -> LostProcess:
    """The error with what to do about it."""
    folder, saved = loop.run.folder, f"all is saved up to step {loop.saved}" if loop.saved is not None else "nothing is saved yet"
    return LostProcess(f"{folder}: {error}; {saved}; go on with {resume_command(folder)}, on any number of processes")


def _finished(loop: OuterLoop, seconds: float) -> Finished:
    """The last event; the scores are written before."""
    flow = dataclasses.replace(loop.flow, world=ALONE)  # what follows is the first process's
    protocol_text = protocol(flow)
    scores = [(weights, score) for weights, scores in (("untrained", loop.before), ("best", loop.after)) for score in scores]
    with loop.world.together():
        if loop.world.first:
            loop.run.append([{"weights": weights, **score.plain(), "protocol": protocol_text} for weights, score in scores], once=True)
    validation = paired(loop.episodes.get("untrained", []), loop.episodes.get("best", []), flow.pipeline.metric)
    return Finished(loop.run, flow, loop.before, loop.after, loop.best, loop.untrained, validation, seconds, protocol_text)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context torch computes on one thread, as sums depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _built(pipeline: Pipeline, test: bool, world: World) -> Flow:
    """The flow of a run, once it is known that it can be trained and measured, and that all processes have the same."""
    with world.together():
        flow = build(pipeline, world=world)
        if not test:
            flow = dataclasses.replace(flow, splits={name: images for name, images in flow.splits.items() if name != "test"})
        check_first_task(flow)
    require_agreement(flow)
    check_readouts(flow, test)
    return world.one_by_machine(lambda: with_features(flow))
