"""TensorBoard's event files, read by TensorBoard itself."""

from __future__ import annotations

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metaflowkit.config.pipeline import read
from metaflowkit.reporting.train import train
from metaflowkit.training.loop import events
from metaflowkit.training.metric_loggers.tensorboard import TensorBoard
from tests.small import SMALL


def series(run) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def logged(run) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        for key, value in metrics.items():
            if isinstance(value, float):
                found.setdefault(key, []).append((metrics["step"], value))
    return found


def near(one, two) -> bool:
    return [step for step, _ in one] == [step for step, _ in two] and all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(one, two))


def test_every_metric_and_the_test_scores(write, tmp_path) -> None:
    report = train(read(write(SMALL), ["loggers=[tensorboard]"]), tmp_path / "run")
    read_back, own = series(tmp_path / "run"), logged(tmp_path / "run")
    assert own
    assert all(near(read_back[name], values) for name, values in own.items())
    for score in report.after:
        assert near(read_back[f"test/{score.setting.short}/trained".replace(" ", "_").replace(",", "_")], [(4, score.value)])
    text = (next((tmp_path / "run" / "tensorboard").iterdir())).read_bytes()
    assert b"name: conv4" in text


def test_steps_that_are_repeated_after_an_interruption_are_there_once(write, tmp_path) -> None:
    pipeline, logger = read(write(SMALL), ["loggers=[tensorboard]"]), TensorBoard()
    stream = events(pipeline, tmp_path / "run")
    for event in stream:
        logger.log(event)
        if getattr(event, "step", 0) == 3:
            break
    stream.close()
    logger.writer.close()
    train(pipeline, tmp_path / "run", resume=True)
    read_back, own = series(tmp_path / "run"), logged(tmp_path / "run")
    assert [step for step, _ in read_back["train/objective"]] == [1, 2, 3, 4]
    assert all(near(read_back[name], values) for name, values in own.items())
