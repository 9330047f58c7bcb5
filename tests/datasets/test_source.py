"""Listing image files; oracles: the files that were written, and the kernel's count of bytes that the process has read."""

from __future__ import annotations

import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from metaflowkit.datasets.source import open_source, shown, tree_stamps
from metaflowkit.errors import DataError
from tests.conftest import png

IMAGE = png(np.arange(64, dtype=np.uint8).reshape(8, 8))


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(IMAGE)
    return root


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, IMAGE)
    return path


JUNK = ("a/._1.png", "__MACOSX/a/._1.png", "__MACOSX/a/1.png", ".hidden/2.png", "a/@eaDir/1.png", "a/.DS_Store", "a/Thumbs.db", "notes.txt")


def test_what_other_systems_leave_behind_is_no_image(tmp_path) -> None:
    tree, archive = put(tmp_path / "tree", "a/1.png", "b/2.JPG", *JUNK), zipped(tmp_path / "tree.zip", "a/1.png", "b/2.JPG", *JUNK)
    for root in (tree, archive):
        assert open_source(root).names == ("a/1.png", "b/2.JPG")


def test_a_folder_named_like_an_image_is_no_image(tmp_path) -> None:
    assert open_source(put(tmp_path, "a/1.png", "c.png/3.png")).names == ("a/1.png", "c.png/3.png")


def test_backslashes_of_a_windows_zip_are_folders(tmp_path) -> None:
    source = open_source(zipped(tmp_path / "windows.zip", "a\\1.png", "b\\2.png"))
    assert source.names == ("a/1.png", "b/2.png")
    with source.opened() as read:
        assert read("a/1.png") == IMAGE


def test_threads_read_a_zip_one_after_the_other(tmp_path, monkeypatch) -> None:
    """Python's ZipFile has mixed up the positions of threads in some versions, and then calls whole files damaged."""
    names = [f"{i}.png" for i in range(8)]
    source, inside, most, read_one = open_source(zipped(tmp_path / "images.zip", *names)), [], [], zipfile.ZipFile.read

    def watched(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        inside.append(member)
        time.sleep(0.005)
        most.append(len(inside))
        inside.remove(member)
        return read_one(archive, member)

    monkeypatch.setattr(zipfile.ZipFile, "read", watched)
    with source.opened() as read, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, names)) == [IMAGE] * 8
    assert max(most) == 1


def test_names_that_are_no_utf8(tmp_path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/1.png", "wb") as handle:
        handle.write(IMAGE)
    source = open_source(tmp_path)
    assert shown(source.names[0]) == "caf\\xe9/1.png"
    assert len(source.fingerprint()) == 64
    with source.opened() as read:
        assert read(source.names[0]) == IMAGE


def test_links_are_followed_but_not_into_what_holds_them(tmp_path) -> None:
    put(tmp_path / "tree", "a/1.png")
    put(tmp_path / "elsewhere", "2.png")
    (tmp_path / "tree" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "a" / "up").symlink_to(tmp_path / "tree")
    (tmp_path / "elsewhere" / "here").symlink_to(".")
    (tmp_path / "tree" / "a" / "itself").symlink_to("itself")
    (tmp_path / "tree" / "a" / "gone.png").symlink_to("nowhere")  # named when it is read
    assert open_source(tmp_path / "tree").names == ("a/1.png", "a/gone.png", "b/2.png")


def test_sources_that_are_none(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    for name, says in [
        ("missing", "does not exist; set dataset.root to the folder or zip that holds the images"),
        ("empty", r"holds no image \(\.png"),
        ("none.zip", r"holds no image \(\.png"),
        ("text.zip", r"is neither a folder nor a whole zip file \(File is not a zip file\)"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            open_source(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    listing = Path.iterdir

    def forbidden(path):
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(DataError, match=r"/b: cannot be listed \(Permission denied\); make it readable or remove it"):
        open_source(tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path) -> None:
    path = zipped(tmp_path / "secret.zip", "a/1.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flags in the central directory
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"secret\.zip: is encrypted; unpack it with its password and give the folder"):
        open_source(path)


def rewrite(path: Path, content: bytes) -> None:
    """Other content with the times of the old."""
    facts = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_the_fingerprint_of_a_folder_follows_names_sizes_and_times(tmp_path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    prints = [open_source(tmp_path).fingerprint()]
    assert open_source(tmp_path).fingerprint() == prints[0]
    changes = [
        lambda: (tmp_path / "b/2.png").write_bytes(IMAGE + b" "),
        lambda: os.utime(tmp_path / "b/2.png", ns=(1, 1)),
        lambda: rewrite(tmp_path / "a/1.png", IMAGE[::-1]),  # the system's own time of change cannot be set back
        lambda: (tmp_path / "b/2.png").rename(tmp_path / "b/3.png"),
        lambda: put(tmp_path, "c/4.png"),
    ]
    for change in changes:
        change()
        prints.append(open_source(tmp_path).fingerprint())
    assert len(set(prints)) == len(changes) + 1


def test_two_folders_of_the_same_names_sizes_and_times_differ(tmp_path) -> None:
    prints = set()
    for name in ("one", "two"):
        put(tmp_path / name, "a/1.png")
        os.utime(tmp_path / name / "a" / "1.png", ns=(1, 1))
        prints.add(open_source(tmp_path / name).fingerprint())
    assert len(prints) == 2


def test_the_fingerprint_of_a_zip_follows_its_content_alone(tmp_path) -> None:
    path = zipped(tmp_path / "a.zip", "a/1.png", "b/2.png")
    before = open_source(path).fingerprint()
    os.utime(path, ns=(1, 1))
    path.rename(tmp_path / "b.zip")
    assert open_source(tmp_path / "b.zip").fingerprint() == before
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", IMAGE)
        archive.writestr("b/2.png", IMAGE[::-1])  # of the same size
    assert open_source(path).fingerprint() != before


def test_verify_follows_content_and_not_times(tmp_path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    before = open_source(tmp_path).content()
    os.utime(tmp_path / "a" / "1.png", ns=(1, 1))
    assert open_source(tmp_path).content() == before
    rewrite(tmp_path / "a" / "1.png", IMAGE[::-1])
    changed = open_source(tmp_path).content()
    (tmp_path / "b" / "2.png").unlink()
    (tmp_path / "b" / "2.png").symlink_to("nowhere")
    assert len({before, changed, open_source(tmp_path).content()}) == 3


def test_tree_stamps_are_those_of_all_files(tmp_path) -> None:
    assert tree_stamps(tmp_path / "none") == []
    put(tmp_path, "a/1.png", "b/data.bin")
    before = tree_stamps(tmp_path)
    assert [line.split("\0")[0] for line in before] == ["a/1.png", "b/data.bin"]
    (tmp_path / "b" / "data.bin").write_bytes(IMAGE)
    assert tree_stamps(tmp_path)[0] == before[0]
    assert tree_stamps(tmp_path)[1] != before[1]
