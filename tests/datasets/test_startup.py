"""A start that finds its images in the cache reads the entry and next to nothing else; oracle: the kernel's count of bytes that this process has read."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metaflowkit.datasets.folder import Folder
from metaflowkit.datasets.glyphs import FACES, Glyphs, _face_paths
from metaflowkit.datasets.omniglot import Omniglot
from metaflowkit.datasets.torchvision_sets import TorchvisionSet
from tests.conftest import png

COUNTER = Path("/proc/self/io")
SLACK = 60_000  # central directories, listings and headers
SIZE = 8

pytestmark = pytest.mark.skipif(not COUNTER.exists(), reason="the system does not count the bytes that a process reads")


def bytes_read(action: Callable[[], object]) -> int:
    def total() -> int:
        return int(COUNTER.read_text().split()[1])

    before = total()
    action()
    return total() - before


def noise(rng: np.random.Generator) -> bytes:
    return png(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))  # 12 kB, which no compression makes smaller


def tree(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for c in range(10):
        (root / f"c{c}").mkdir(parents=True)
        for i in range(5):
            (root / f"c{c}" / f"{i}.png").write_bytes(noise(rng))
    return root


def folder(root: Path) -> tuple[Folder, int]:
    files = tree(root / "tree").rglob("*.png")
    return Folder(str(root / "tree"), image_size=SIZE), sum(file.stat().st_size for file in files)


def zipped_folder(root: Path) -> tuple[Folder, int]:
    with zipfile.ZipFile(root / "tree.zip", "w") as archive:
        for file in tree(root / "tree").rglob("*.png"):
            archive.write(file, file.relative_to(root / "tree"))
    return Folder(str(root / "tree.zip"), image_size=SIZE), (root / "tree.zip").stat().st_size


def omniglot(root: Path) -> tuple[Omniglot, int]:
    rng = np.random.default_rng(0)
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for c in range(25):
                archive.writestr(f"{part}/Alphabet{c % 5}/character{c:02d}/1.png", noise(rng))
    return Omniglot(str(root), image_size=SIZE), sum(path.stat().st_size for path in root.glob("*.zip"))


def glyphs(root: Path) -> tuple[Glyphs, int]:
    return Glyphs(image_size=SIZE, faces=FACES[:4], min_faces=4), sum(path.stat().st_size for path in _face_paths(FACES[:4]))


def image_folder(root: Path) -> tuple[TorchvisionSet, int]:
    files = tree(root / "tree").rglob("*.png")
    return TorchvisionSet("ImageFolder", root=str(root / "tree"), image_size=SIZE), sum(file.stat().st_size for file in files)


def mnist(root: Path) -> tuple[TorchvisionSet, int]:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 400, 28, 28) + rng.bytes(400 * 784))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 400) + bytes(i % 10 for i in range(400)))
    return TorchvisionSet("MNIST", root=str(root), image_size=SIZE, mode="grey"), 2 * 400 * 784


@pytest.mark.parametrize("make", [folder, zipped_folder, omniglot, glyphs, image_folder, mnist], ids=lambda make: make.__name__)
def test_the_second_start_reads_the_cache_alone(make, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    dataset, content = make(tmp_path / "data")
    assert bytes_read(dataset.load) > 100_000  # the counter works
    entries = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    again = bytes_read(dataset.load)
    assert again < entries + SLACK
    assert content > 5 * SLACK


def test_verify_reads_the_files_each_time(tmp_path) -> None:
    tree(tmp_path / "tree")
    dataset = Folder(str(tmp_path / "tree"), image_size=SIZE, verify=True)
    dataset.load()
    assert bytes_read(dataset.load) > 50 * 12_000
