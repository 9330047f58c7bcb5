"""The metric log: lines come back as written, a torn line is left out, rewinding gives the earlier bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metaflowkit.errors import RunError
from metaflowkit.training import metric_log as module
from metaflowkit.training.metric_log import MetricLog


@pytest.fixture
def metric_log(tmp_path) -> MetricLog:
    return MetricLog(tmp_path / "metrics.jsonl")


def test_lines_come_back_in_order(metric_log) -> None:
    metric_log.write(1, **{"train/objective": 0.1 + 0.2})
    metric_log.write(2, note="é", values=[1, None])
    assert metric_log.read() == [{"step": 1, "train/objective": 0.1 + 0.2}, {"step": 2, "note": "é", "values": [1, None]}]
    assert [json.loads(line)["step"] for line in metric_log.path.read_text().splitlines()] == [1, 2]


def test_no_file_is_an_empty_journal(metric_log) -> None:
    assert (metric_log.read(), metric_log.length()) == ([], 0)
    metric_log.rewind(0)
    assert not metric_log.path.exists()


def test_a_torn_last_line_is_left_out_wherever_it_was_torn(metric_log) -> None:
    metric_log.write(1, a=1)
    whole = metric_log.length()
    metric_log.write(2, b="é")
    content = metric_log.path.read_bytes()
    for end in range(whole, len(content)):
        metric_log.path.write_bytes(content[:end])
        assert metric_log.read() == [{"step": 1, "a": 1}]
    metric_log.path.write_bytes(content)
    assert len(metric_log.read()) == 2


def test_rewind_gives_the_earlier_bytes_and_writing_goes_on(metric_log) -> None:
    metric_log.write(1, a=1)
    length, before = metric_log.length(), metric_log.path.read_bytes()
    assert length == len(before)
    metric_log.write(2, a=2)
    after = metric_log.path.read_bytes()
    metric_log.path.write_bytes(after + b'{"step": 3, "a')
    metric_log.rewind(length)
    assert metric_log.path.read_bytes() == before
    metric_log.write(2, a=2)
    assert metric_log.path.read_bytes() == after
    assert os.listdir(metric_log.path.parent) == [metric_log.path.name]


def test_rewind_to_its_own_length_writes_nothing(metric_log, monkeypatch) -> None:
    metric_log.write(1, a=1)
    monkeypatch.setattr(module, "write_atomic", lambda *args: pytest.fail("wrote"))
    metric_log.rewind(metric_log.length())
    assert metric_log.read() == [{"step": 1, "a": 1}]


def test_the_bytes_hold_no_clock(metric_log, tmp_path) -> None:
    other = MetricLog(tmp_path / "other.jsonl")
    for one in (metric_log, other):
        one.write(1, a=0.5)
    assert metric_log.path.read_bytes() == other.path.read_bytes() == b'{"step": 1, "a": 0.5}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_says_how_to_go_on() -> None:
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); free space, then go on with mfk run --run-dir /dev --resume$"):
        MetricLog(Path("/dev/full")).write(1, a=1)


def test_a_folder_in_its_place(tmp_path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        MetricLog(tmp_path).write(1)
