"""The journal: lines come back as written, a torn line is left out, rewinding gives the earlier bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metaflowkit.errors import RunError
from metaflowkit.training import metric_log as module
from metaflowkit.training.metric_log import Journal


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "metrics.jsonl")


def test_lines_come_back_in_order(journal) -> None:
    journal.write(1, **{"train/objective": 0.1 + 0.2})
    journal.write(2, note="é", values=[1, None])
    assert journal.read() == [{"step": 1, "train/objective": 0.1 + 0.2}, {"step": 2, "note": "é", "values": [1, None]}]
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [1, 2]


def test_no_file_is_an_empty_journal(journal) -> None:
    assert (journal.read(), journal.length()) == ([], 0)
    journal.rewind(0)
    assert not journal.path.exists()


def test_a_torn_last_line_is_left_out_wherever_it_was_torn(journal) -> None:
    journal.write(1, a=1)
    whole = journal.length()
    journal.write(2, b="é")
    content = journal.path.read_bytes()
    for end in range(whole, len(content)):
        journal.path.write_bytes(content[:end])
        assert journal.read() == [{"step": 1, "a": 1}]
    journal.path.write_bytes(content)
    assert len(journal.read()) == 2


def test_rewind_gives_the_earlier_bytes_and_writing_goes_on(journal) -> None:
    journal.write(1, a=1)
    length, before = journal.length(), journal.path.read_bytes()
    assert length == len(before)
    journal.write(2, a=2)
    after = journal.path.read_bytes()
    journal.path.write_bytes(after + b'{"step": 3, "a')
    journal.rewind(length)
    assert journal.path.read_bytes() == before
    journal.write(2, a=2)
    assert journal.path.read_bytes() == after
    assert os.listdir(journal.path.parent) == [journal.path.name]


def test_rewind_to_its_own_length_writes_nothing(journal, monkeypatch) -> None:
    journal.write(1, a=1)
    monkeypatch.setattr(module, "write_atomic", lambda *args: pytest.fail("wrote"))
    journal.rewind(journal.length())
    assert journal.read() == [{"step": 1, "a": 1}]


def test_the_bytes_hold_no_clock(journal, tmp_path) -> None:
    other = Journal(tmp_path / "other.jsonl")
    for one in (journal, other):
        one.write(1, a=0.5)
    assert journal.path.read_bytes() == other.path.read_bytes() == b'{"step": 1, "a": 0.5}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_says_how_to_go_on() -> None:
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); free space, then go on with mfk run --run-dir /dev --resume$"):
        Journal(Path("/dev/full")).write(1, a=1)


def test_a_folder_in_its_place(tmp_path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        Journal(tmp_path).write(1)
