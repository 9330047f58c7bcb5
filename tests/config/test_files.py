"""Writes and locks among several processes: real ones, some of them killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from metaflowkit.config import files
from metaflowkit.config.files import locked, remove_partials, write_atomic
from metaflowkit.errors import RunError

HERE = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=HERE)


WRITER = """
import sys
from pathlib import Path
from metaflowkit.config.files import write_atomic
path, letter = Path(sys.argv[1]), sys.argv[2]
for _ in range(150):
    write_atomic(path, letter.encode() * 50_000)
"""


def test_several_processes_may_write_one_path(tmp_path) -> None:
    path = tmp_path / "file"
    writers = [python(WRITER, path, letter) for letter in "ABC"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert content in [letter * 50_000 for letter in (b"A", b"B", b"C")]
            seen.add(content[:1])
    for writer in writers:
        assert (writer.wait(), writer.communicate()[1]) == (0, "")
    assert seen
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_write_leaves_is_removed_and_a_living_ones_stays(tmp_path) -> None:
    code = "import os, sys, time\nfrom pathlib import Path\nfrom metaflowkit.config.files import write_atomic\nos.fsync = lambda handle: (print('there', flush=True), time.sleep(100))\n"
    process = python(code + "write_atomic(Path(sys.argv[1]), b'x')", tmp_path / "file")
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    (left,) = tmp_path.iterdir()
    remove_partials(tmp_path)
    assert left.exists()
    process.kill()
    process.communicate()
    other = tmp_path / f".file.another-host.{process.pid}.00000000.partial"
    mine, of_old = tmp_path / ".mine.partial", tmp_path / f".file.{socket.gethostname()}.x.0.partial"
    for path in (other, mine, of_old):
        path.touch()
    remove_partials(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([other, mine, of_old])


def test_the_message_says_what_the_system_says(tmp_path, monkeypatch) -> None:
    def fail(a: object, b: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError) as caught:
        write_atomic(tmp_path / "file", b"x")
    assert str(caught.value).startswith(f"{tmp_path}/file: cannot be written (No such file or directory); see that the folder is there and may be written")
    assert "free space" not in str(caught.value)
    assert not list(tmp_path.iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from metaflowkit.config.files import locked
with locked(Path(sys.argv[1]), "no"):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path) -> None:
    path = tmp_path / "lock"
    holder = python(HOLDER, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError) as caught, locked(path, "somebody is here"):
        pass
    assert str(caught.value) == f"somebody is here (held by process {holder.pid} on {socket.gethostname()})"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.exists()
    with locked(path, "no"):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(RunError, match=f"once .held by process {os.getpid()} "), locked(path, "once"):
            pass
    assert not path.exists()


def test_a_lock_is_given_back_by_an_exception_and_a_replaced_file_is_left_alone(tmp_path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyboardInterrupt), locked(path, "no"):
        raise KeyboardInterrupt
    assert not path.exists()
    with locked(path, "no"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_without_locks_of_the_system_nothing_is_kept_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    with locked(tmp_path / "lock", "no"), locked(tmp_path / "lock", "no"):
        pass
    with pytest.raises(RunError, match="cannot be written"), locked(Path(tmp_path / "none" / "lock"), "no"):
        pass


COUNTER = """
import sys, time
from pathlib import Path
from metaflowkit.config.files import locked
from metaflowkit.errors import RunError
lock, count = Path(sys.argv[1]), Path(sys.argv[2])
done = 0
while done < 40:
    try:
        with locked(lock, "no"):
            value = int(count.read_text())
            time.sleep(0.0005)
            count.write_text(str(value + 1))
            done += 1
    except RunError:
        pass
"""


def test_no_two_processes_ever_hold_it_while_it_comes_and_goes(tmp_path) -> None:
    (tmp_path / "count").write_text("0")
    processes = [python(COUNTER, tmp_path / "lock", tmp_path / "count") for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=60)[1] == ""
    assert (tmp_path / "count").read_text() == "120"
