"""The cache of decoded images: keyed by content and settings, remade where it is damaged, done without where it cannot be."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.datasets.cache import cached


@pytest.fixture
def count(tmp_path, monkeypatch):
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    calls = []

    def make():
        calls.append(1)
        return torch.full((2, 1, 3, 3), len(calls), dtype=torch.uint8), torch.tensor([0, 1]), ["a", "b"]

    return calls, make, tmp_path / "cache"


def test_one_decoding_per_key(count) -> None:
    calls, make, folder = count
    first = cached({"content": "x", "size": 3}, make)
    again = cached({"size": 3, "content": "x"}, make)
    assert torch.equal(first[0], again[0])
    assert again[2] == ["a", "b"]
    assert len(calls) == 1
    cached({"content": "y", "size": 3}, make)
    cached({"content": "x", "size": 4}, make)
    assert len(calls) == 3
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_entry_is_made_again(count, damage) -> None:
    calls, make, folder = count
    cached({}, make)
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:200] if damage is None else damage)
    assert cached({}, make)[0].max() == 2
    assert cached({}, make)[0].max() == 2
    assert len(calls) == 2


def test_without_a_place_to_write_it_decodes_each_time(count, monkeypatch) -> None:
    _, make, folder = count
    folder.write_text("a file in its place")
    assert cached({}, make)[0].max() == 1
    assert cached({}, make)[0].max() == 2


IMAGES = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)


def flipped(content: bytes) -> bytes:
    place = content.index(IMAGES.numpy().tobytes()) + 100
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [lambda b: b"text, no tensors", lambda b: bytes(range(189, 256)), flipped], ids=["text", "bytes", "one bit of an image"])
def test_damage_of_any_sort_is_noticed(tmp_path, monkeypatch, damage) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path))

    def make():
        return IMAGES.clone(), torch.tensor([0, 0, 1, 1]), ["a", "b"]

    cached({}, make)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert torch.equal(cached({}, make)[0], IMAGES)
