"""Training as a generator: what it tells, in which order, and that leaving it early loses nothing that was told as saved."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from metaflowkit.config.pipeline import read
from metaflowkit.errors import Interrupted
from metaflowkit.reporting.train import train
from metaflowkit.training import events as module
from metaflowkit.training.checkpoint import load, saved
from metaflowkit.training.events import Finished, Saved, Started, Stepped, Validated
from metaflowkit.training.loop import events
from metaflowkit.training.stop import Stop
from tests.small import SMALL


@pytest.fixture
def pipeline(write):
    return read(write(SMALL), ["device=cpu", "outer.steps=4", "evaluate.every=2"])


def names(told):
    return [type(event).__name__ for event in told]


def test_the_order_of_events_and_what_they_carry(pipeline, tmp_path) -> None:
    told = list(events(pipeline, tmp_path / "run"))
    tests = ["Tested"] * 2 * len(pipeline.evaluate.settings())
    assert names(told) == [
        "Started",
        "Saved",
        "Validated",
        "Stepped",
        "Stepped",
        "Saved",
        "Validated",
        "Stepped",
        "Stepped",
        "Saved",
        "Validated",
        *tests,
        "Finished",
    ]
    assert isinstance(told[0], Started)
    assert (told[0].folder, told[0].steps) == (tmp_path / "run", 4)
    steps = [event for event in told if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [1, 2, 3, 4]
    assert all(event.objective == event.metrics["train/objective"] for event in steps)
    assert [event.step for event in told if isinstance(event, Validated)] == [0, 2, 4]
    assert [event.weights for event in told if isinstance(event, module.Tested)] == sorted(["untrained", "trained"] * (len(tests) // 2), reverse=True)
    last = told[-1]
    assert isinstance(last, Finished)
    assert last.best is not None
    assert last.best["value"] == max(event.score.value for event in told if isinstance(event, Validated) and event.step)
    assert [*last.before, *last.after] == [score for event in told if isinstance(event, module.Tested) for score in event.scores]


def test_what_is_told_as_saved_is_there_when_it_is_told(pipeline, tmp_path) -> None:
    for event in events(pipeline, tmp_path / "run"):
        if isinstance(event, Saved):
            assert load(event.path).step == event.step


def test_leaving_the_loop_keeps_what_was_saved_and_the_run_goes_on_to_the_same_bytes(pipeline, tmp_path) -> None:
    train(pipeline, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    with closing(events(pipeline, tmp_path / "left")) as told:
        for event in told:
            if isinstance(event, Validated) and event.step == 2:
                break
    assert signal.getsignal(signal.SIGINT) is handler
    train(pipeline, tmp_path / "left", resume=True)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert (tmp_path / "left" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "left" / "checkpoints" / "best.pt").read_bytes() == (tmp_path / "whole" / "checkpoints" / "best.pt").read_bytes()


def test_a_run_killed_before_its_report_and_resumed_has_its_scores_once(pipeline, tmp_path) -> None:
    with closing(events(pipeline, tmp_path / "run")) as told:
        assert any(isinstance(event, Finished) for event in told)  # the scores are written, the report is not
    written = (tmp_path / "run" / "evaluations.jsonl").read_bytes()
    train(pipeline, tmp_path / "run", resume=True)
    assert written
    assert (tmp_path / "run" / "evaluations.jsonl").read_bytes() == written


def test_the_caller_may_ask_for_the_end_and_the_step_at_hand_is_saved(pipeline, tmp_path) -> None:
    stop = Stop()
    told = events(pipeline, tmp_path / "run", stop=stop)
    while not isinstance(next(told), Stepped):
        pass
    stop.ask("the caller")
    with pytest.raises(Interrupted, match="stopped by the caller after step 1, all is saved"):
        next(told)
    assert [path.name for path in saved(tmp_path / "run" / "checkpoints")] == ["step-0000000.pt", "step-0000001.pt"]


def test_a_second_ctrl_c_while_something_is_shown_says_what_is_saved(pipeline, tmp_path) -> None:
    from metaflowkit.reporting.terminal import Silent

    class Slow(Silent):
        def step(self, step, objective, images):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"stopped at once by SIGINT, all is saved up to step 2 and what came after it is lost"):
        train(pipeline, tmp_path / "run", progress=Slow())
