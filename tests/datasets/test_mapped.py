"""Images that are mapped from the cache, against the same in memory."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from metaflowkit.config.choice import Choice
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import DATASETS
from metaflowkit.datasets import cache, cache_file
from metaflowkit.datasets.images import Decoding, read_images
from metaflowkit.datasets.mapped import MappedRows, rows_of
from metaflowkit.datasets.source import open_source
from metaflowkit.errors import DataError
from metaflowkit.evaluation.precomputed import fingerprint
from metaflowkit.reporting.train import train
from tests.conftest import png
from tests.training.test_loop import EXACT


@pytest.fixture
def rows() -> tuple[MappedRows, torch.Tensor]:
    """Rows of a base, and the same as an ordinary tensor."""
    base = torch.arange(120, dtype=torch.uint8).reshape(10, 3, 2, 2)
    chosen = torch.tensor([7, 1, 1, 0, 9, 4])
    return MappedRows(base, chosen), base[chosen]


@pytest.mark.parametrize(
    ("take", "stays"),
    [
        (lambda x: x[torch.tensor([[0, 5], [2, 2]])], False),
        (lambda x: x[[1, 4]], False),
        (lambda x: x[torch.tensor([True, False, True, False, False, True])], False),
        (lambda x: x[-1], False),
        (lambda x: x[torch.tensor([0]), torch.tensor([2])], False),
        (lambda x: x.index_select(0, torch.tensor([3, 3])), False),
        (lambda x: x.index_select(1, torch.tensor([0])), False),
        (lambda x: x[:, 1:], False),
        (lambda x: x[1:5], True),
        (lambda x: x[::2], True),
        (lambda x: x[:0], True),
        (lambda x: torch.split(x, 4)[1], True),
        (lambda x: x.detach(), True),
        (lambda x: x.contiguous().cpu(), True),
        (lambda x: x.float() / 255, False),
        (lambda x: torch.cat([x, x]), False),
        (lambda x: x.sum((1, 2, 3)), False),
        (lambda x: x[:2].expand(3, 2, 3, 2, 2), False),
        (lambda x: rows_of(x, torch.tensor([5, 0])), True),
        (lambda x: rows_of(x[1:], [0, 2])[torch.tensor([1])], False),
        (lambda x: torch.from_numpy(x.numpy()), False),
        (lambda x: torch.from_numpy(np.asarray(x)), False),
        (lambda x: copy.deepcopy(x), True),
        (lambda x: pickle.loads(pickle.dumps(x)), False),
    ],
)
def test_every_operation_gives_what_it_gives_in_memory(take, stays, rows) -> None:
    mapped, plain = rows
    result, expected = take(mapped), take(plain)
    assert isinstance(result, MappedRows) == stays
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(result.read() if stays else result, expected)


def test_a_fingerprint_of_mapped_rows_reads_none_of_them(monkeypatch) -> None:
    def fail(rows: MappedRows) -> torch.Tensor:
        raise AssertionError("all rows are read")

    base, chosen = torch.arange(120, dtype=torch.uint8).reshape(10, 3, 2, 2), torch.arange(10)
    unknown = fingerprint({"x": MappedRows(base, chosen)})
    assert unknown == fingerprint({"x": base})
    monkeypatch.setattr(MappedRows, "read", fail)
    rows = MappedRows(base, chosen, "a file")
    prints = [fingerprint({"x": x}) for x in (rows, rows.detach(), MappedRows(base, chosen, "another file"), rows_of(rows, chosen.flip(0)), rows[2:])]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def photographs(folder: Path, damaged: bool = False) -> Path:
    rng = np.random.default_rng(0)
    for c in range(9):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(8):
            (folder / f"class{c}" / f"{i}.png").write_bytes(png(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)))
    if damaged:
        (folder / "class2/3.png").write_bytes(b"no image")
        (folder / "class0/0.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("damaged", [False, True])
def test_a_mapped_data_set_is_the_same_and_a_second_start_maps_it_again(damaged, tmp_path, monkeypatch) -> None:
    folder = photographs(tmp_path / "photographs", damaged)
    data_set = DATASETS.build(Choice("folder", {"root": str(folder), "image_size": 16, "unreadable": "skip"}))
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "memory"))
    expected = data_set.load()
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "mapped"))
    monkeypatch.setattr(cache_file, "MAPPED", 100)
    for _ in range(2):
        splits = data_set.load()
        for name, images in splits.items():
            assert isinstance(images.x, MappedRows)
            assert torch.equal(images.x.read(), expected[name].x)
            assert torch.equal(images.y, expected[name].y)
            assert images.classes == expected[name].classes
    (entry,) = (tmp_path / "mapped").iterdir()
    assert cache_file.read_entry(entry)[0].shape[0] == 72 - 2 * damaged
    assert cache.report()[-1].startswith("1 entries")


def test_a_run_on_mapped_images_is_the_same_to_the_bit(tmp_path, write, monkeypatch) -> None:
    folder = photographs(tmp_path / "photographs")
    text = f"""
dataset: {{name: folder, root: {folder}, image_size: 16, fractions: {{train: 0.34, val: 0.33, test: 0.33}}}}
augment: {{level: 2}}
tasks: {{name: views, way: 3, shot: 2, query: 1, meta_batch: 1}}
model: {{backbone: {{name: conv4, width: 4}}}}
inner: {{steps: 1}}
outer: {{steps: 6}}
evaluate: {{every: 3, way: 3, query: 2, episodes: 4, val_episodes: 4}}
"""
    for name, mapped in (("memory", 1 << 30), ("mapped", 100)):
        monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / f"cache of {name}"))
        monkeypatch.setattr(cache_file, "MAPPED", mapped)
        train(read(write(text)), tmp_path / name)
    for name in EXACT:
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "mapped" / name).read_bytes()


def test_damage_in_a_mapped_entry_is_found_where_it_is_asked_for(tmp_path, monkeypatch) -> None:
    source, decoding = open_source(photographs(tmp_path / "photographs")), Decoding(16, "color")
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_file, "MAPPED", 100)
    right = read_images(source, decoding).x.read()
    (entry,) = (tmp_path / "cache").iterdir()
    content = bytearray(entry.read_bytes())
    content[1000] ^= 1
    entry.write_bytes(content)
    assert not torch.equal(read_images(source, decoding).x.read(), right)
    monkeypatch.setenv("METAFLOWKIT_VERIFY", "1")
    assert torch.equal(read_images(source, decoding).x.read(), right)
    monkeypatch.delenv("METAFLOWKIT_VERIFY")
    assert torch.equal(read_images(source, decoding).x.read(), right)


def test_a_network_drive_is_read_and_not_mapped(tmp_path, monkeypatch) -> None:
    source, decoding = open_source(photographs(tmp_path / "photographs")), Decoding(16, "color")
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_file, "MAPPED", 100)
    assert not cache_file.is_network(tmp_path)
    monkeypatch.setattr(cache_file, "is_network", lambda path: True)
    for _ in range(2):
        assert type(read_images(source, decoding).x) is torch.Tensor


def test_the_nearest_mount_says_whether_a_drive_is_shared(tmp_path) -> None:
    (tmp_path / "a home" / "local").mkdir(parents=True)
    mounts, home = tmp_path / "mounts", str(tmp_path.resolve() / "a home").replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/home {home} nfs4 rw 0 0\n/dev/sdb {home}/local xfs rw 0 0\n")
    shared = [cache_file.is_network(tmp_path / name / "x.images", mounts) for name in ("", "a home", "a home/local")]
    assert shared == [False, True, False]


def test_a_disk_without_room_is_done_without(tmp_path, monkeypatch) -> None:
    source, decoding = open_source(photographs(tmp_path / "photographs")), Decoding(16, "color")
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_file, "MAPPED", 100)

    def full(*arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("os.replace", full)
    assert type(read_images(source, decoding).x) is torch.Tensor
    assert list((tmp_path / "cache").iterdir()) == []


def test_images_beyond_memory_and_cache_are_refused(tmp_path, monkeypatch) -> None:
    source = open_source(photographs(tmp_path / "photographs"))
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAFLOWKIT_CACHE_SIZE", "1K")
    monkeypatch.setattr("metaflowkit.memory.machine_memory", lambda device=None: 1000.0)
    with pytest.raises(DataError, match="lower dataset.image_size, or raise METAFLOWKIT_CACHE_SIZE, so that they lie on disk"):
        read_images(source, Decoding(16, "color"))
