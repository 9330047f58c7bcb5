"""The cache of decoded images: keyed by content and settings, remade where it is damaged, done without where it cannot be, and limited in size."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import time

import pytest
import torch
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.datasets import cache, cache_file
from metaflowkit.datasets.cache import cached, size_limit
from metaflowkit.errors import ConfigError

ENTRY = 256 + 4 * 8  # bytes of images and labels in an entry of IMAGES
IMAGES = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)


@pytest.fixture
def count(tmp_path, monkeypatch):
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    calls = []

    def make():
        calls.append(1)
        return torch.full((2, 1, 3, 3), len(calls), dtype=torch.uint8), torch.tensor([0, 1]), ["a", "b"]

    return calls, make, tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path))
    return tmp_path


def images():
    return IMAGES.clone(), torch.tensor([0, 0, 1, 1]), ["a", "b"]


def put(number: int, age: float = 0.0) -> os.PathLike:
    """An entry that was last used some seconds ago."""
    cached({"number": number}, images, f"set {number}")
    path = cache._path({"number": number})
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_one_decoding_per_key(count) -> None:
    calls, make, folder = count
    first = cached({"content": "x", "size": 3}, make, "x")
    again = cached({"size": 3, "content": "x"}, make, "x")
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert again[2] == ["a", "b"]
    assert len(calls) == 1
    cached({"content": "y", "size": 3}, make, "x")
    cached({"content": "x", "size": 4}, make, "x")
    assert len(calls) == 3
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"no entry", None])
def test_a_damaged_entry_is_made_again(count, damage) -> None:
    calls, make, folder = count
    cached({}, make, "x")
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-5] if damage is None else damage)
    assert cached({}, make, "x")[0].max() == 2
    assert cached({}, make, "x")[0].max() == 2
    assert len(calls) == 2


def test_without_a_place_to_write_it_decodes_each_time(count) -> None:
    _, make, folder = count
    folder.write_text("a file in its place")
    assert cached({}, make, "x")[0].max() == 1
    assert cached({}, make, "x")[0].max() == 2


def flipped(place: int):
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"text, no tensors", lambda b: bytes(range(189, 256)), flipped(-200), flipped(-1), flipped(30)],
    ids=["text", "bytes", "one bit of an image", "one bit of a label", "one bit of the header"],
)
def test_damage_of_any_sort_is_noticed(folder, damage) -> None:
    cached({}, images, "x")
    (entry,) = folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    stored = cached({}, lambda: (IMAGES + 1, torch.tensor([1, 1, 1, 1]), ["new"]), "x")
    assert stored[2] == ["new"]
    assert torch.equal(cached({}, images, "x")[0], IMAGES + 1)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1000", 1000), ("2K", 2048), ("1.5 MiB", 3 << 19), ("10 GB", 10 << 30), ("1t", 1 << 40), ("", 10 << 30), (None, 10 << 30)]
)
def test_the_limit_is_read_from_the_environment(monkeypatch, text, size) -> None:
    monkeypatch.delenv("METAFLOWKIT_CACHE_SIZE", raising=False)
    if text is not None:
        monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", text)
    assert size_limit() == size


def test_a_limit_that_is_none_is_refused(folder, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", "plenty")
    with pytest.raises(
        ConfigError, match=r"^METAFLOWKIT_CACHE_SIZE: must be a size in bytes, got 'plenty'; write such as 500 MiB or 10 GiB, or 0 for no cache$"
    ):
        cached({}, images, "x")


def test_beyond_the_limit_the_longest_unused_entries_go(folder, monkeypatch) -> None:
    old, older, recent = put(1, age=200), put(2, age=300), put(3, age=100)
    size = old.stat().st_size
    cached({"number": 2}, images, "set 2")  # reading counts as use
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", str(3 * size))
    newest = put(4)
    assert [path.exists() for path in (old, older, recent, newest)] == [False, True, True, True]
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", str(size + 10))
    last = put(5)
    assert [path.name for path in folder.iterdir()] == [last.name]


def test_what_is_larger_than_the_limit_is_not_kept(folder, monkeypatch) -> None:
    put(1)
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", str(ENTRY - 1))
    for _ in range(2):
        assert torch.equal(cached({"number": 2}, images, "set 2")[0], IMAGES)
    assert not cache._path({"number": 2}).exists()
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", "0")
    cached({"number": 3}, images, "set 3")
    assert list(folder.iterdir()) == []


def test_an_entry_that_is_being_read_stays(folder, monkeypatch) -> None:
    reading, other = put(1, age=200), put(2, age=100)
    with open(reading, "rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", str(2 * other.stat().st_size))
        put(3)
        assert (reading.exists(), other.exists()) == (True, False)
        lines = cache.report(clear=True)
        assert reading.exists()
        assert any(line.endswith("set 1  is being read, kept") for line in lines)
    cache.report(clear=True)
    assert not reading.exists()


def test_reading_holds_the_lock_that_removal_respects(folder, monkeypatch) -> None:
    path = put(1)
    header, removed = cache_file.header_of, []

    def slow(handle):
        removed.append(cache.remove(path))
        return header(handle)

    monkeypatch.setattr(cache_file, "header_of", slow)
    assert torch.equal(cached({"number": 1}, images, "set 1")[0], IMAGES)
    assert removed == [False]


def decode_slowly(key: str) -> None:
    def make():
        time.sleep(0.2)
        return torch.full((20, 3, 64, 64), 7, dtype=torch.uint8), torch.arange(20), ["a"]

    for i in range(3):
        x, y, names = cached({"key": key, "i": i}, make, "shared")
        assert (x == 7).all()
        assert (y.tolist(), names) == (list(range(20)), ["a"])


@pytest.mark.slow
def test_processes_that_decode_the_same_set_at_once_do_not_break_each_other(folder) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=decode_slowly, args=("same",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 2
    assert len(list(folder.iterdir())) == 3  # no learner are left
    assert all(cache_file.read_entry(path) is not None for path in folder.iterdir())


def test_two_writers_of_one_entry_write_to_files_of_their_own(folder, monkeypatch) -> None:
    result, replace, first = images(), os.replace, []

    def beside(source, target):
        if not first:
            first.append(source)
            cached({}, lambda: (IMAGES + 1, result[1], ["second"]), "x")  # a second writer begins and ends before the first has renamed
            assert os.path.exists(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", beside)
    cached({}, lambda: result, "x")
    x, _, names = cached({}, lambda: pytest.fail("there is an entry"), "x")
    assert torch.equal(x, IMAGES)
    assert names == ["a", "b"]
    assert len(list(folder.iterdir())) == 1


def test_parts_of_killed_writers_are_removed_and_those_of_living_ones_not(folder) -> None:
    left, living, foreign = folder / ".x.images.partial", folder / ".y.images.partial", folder / "notes.txt"
    for path in (left, living, foreign):
        path.write_bytes(b"x")
    with open(living, "rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        put(1)
        assert [path.exists() for path in (left, living, foreign)] == [False, True, True]
    cache.report(clear=True)
    assert list(folder.iterdir()) == [foreign]


def test_a_full_disk_leaves_no_part(folder, monkeypatch) -> None:
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert torch.equal(cached({}, images, "x")[0], IMAGES)
    assert list(folder.iterdir()) == []


def mfk(*arguments: str) -> list[str]:
    result = CliRunner().invoke(main, ["cache", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_command_lists_and_clears(folder, monkeypatch) -> None:
    monkeypatch.delenv("METAFLOWKIT_CACHE_SIZE", raising=False)
    one, two, three = put(1, age=3 * 86400), put(2, age=10), put(3, age=2 * 86400)
    (folder / ("0" * 32 + ".pt")).write_bytes(b"an entry of the format before")
    (folder / "notes.txt").write_text("not of the cache")
    lines = mfk()
    assert [line.split("  ")[-1] for line in lines[:-1]] == ["damaged, or of an earlier version", "set 2", "set 3", "set 1"]
    assert re.fullmatch(rf"{two.stem[:8]}  +0\.0 MiB  \d{{4}}-\d\d-\d\d \d\d:\d\d  set 2", lines[1])
    assert lines[-1] == f"4 entries, 0.0 MiB, in {folder} (limit 10,240 MiB, METAFLOWKIT_CACHE_SIZE)"
    assert len(mfk("--unused", "1.5")) == 3
    assert len(mfk("--name", "set 2")) == len(mfk("--name", two.stem[:8])) == 2
    assert [path.exists() for path in (one, two, three)] == [True] * 3
    assert mfk("--clear", "--unused", "2.5")[0].endswith("set 1  removed")
    mfk("--clear", "--name", "set 2")
    assert [path.exists() for path in (one, two, three)] == [False, False, True]
    mfk("--clear")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert mfk() == [f"0 entries, 0.0 MiB, in {folder} (limit 10,240 MiB, METAFLOWKIT_CACHE_SIZE)"]


def test_a_cache_folder_that_does_not_exist_is_empty(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "none"))
    assert mfk()[-1].startswith("0 entries")
