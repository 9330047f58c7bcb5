"""The same on PostgreSQL, from a server that the test starts: shared queue, a worker that dies, a database that goes away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from optuna.trial import TrialState

from metaflowkit.errors import RunError
from metaflowkit.search.study import join
from tests.search.small import SPACE, search_file
from tests.search.test_launcher import LONG, finished, start, until
from tests.search.test_trial_queue import share

pytestmark = pytest.mark.postgres
PASSWORD = "s3cret"


class Server:
    """A PostgreSQL server of the test's own; root may not run one, so then the user postgres does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self.more:
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        self._run("initdb", "-D", folder / "base", "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://me:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c max_connections=200"
        self._run("pg_ctl", "-D", self.folder / "base", "-l", self.folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "base", "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments) -> None:
        found = shutil.which(program) or next((str(p) for p in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)), None)
        assert found, f"{program} is not installed; on Debian: apt install postgresql"
        subprocess.run([found, *map(str, arguments)], check=True, capture_output=True, text=True, cwd=self.folder, **self.more)


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


def test_eight_workers_lose_and_double_nothing(server, tmp_path) -> None:
    share(tmp_path, server.url, 8, 25)


def test_a_search_over_the_database_that_a_second_machine_joins_and_whose_worker_is_killed(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_STORAGE", server.url)
    path = search_file(tmp_path, SPACE, f"name: joined\ntrials: 4\nlease: 5\n{LONG}\nfinal: {{seeds: []}}")
    folder, elsewhere = tmp_path / "studies" / "joined", tmp_path / "elsewhere"
    process = start(path, folder=tmp_path)
    until(lambda: (folder / "trials" / "0000" / "checkpoints").is_dir())
    joined = start("--worker", "joined", "--study-dir", elsewhere, folder=tmp_path)
    queue = join(str(folder), server.url).queue
    until(lambda: any((elsewhere / "trials").glob("*/checkpoints")))
    mine = next(t for t in queue.trials(TrialState.RUNNING) if (elsewhere / "trials" / f"{t.number:04d}").is_dir())
    os.kill(joined.pid, signal.SIGKILL)
    joined.communicate()
    text = finished(process)
    assert f"trial {mine.number}: its worker" in text
    assert sum(t.state == TrialState.COMPLETE for t in queue.trials()) == 4
    assert PASSWORD not in text + "".join(
        p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file() and p.suffix in {".json", ".yaml", ".log", ".html"}
    )


def test_a_database_that_goes_away(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_STORAGE", server.url)
    path = search_file(tmp_path, SPACE, f"name: gone\ntrials: 1\nlease: 5\n{LONG}\nfinal: {{seeds: []}}")
    process = start(path, folder=tmp_path)
    until(lambda: (tmp_path / "studies" / "gone" / "trials" / "0000" / "checkpoints").is_dir())
    server.stop()
    text, _ = process.communicate(timeout=120)
    try:
        assert process.returncode == 1
        assert f"mfk: postgresql://me:***@127.0.0.1:{server.port}/postgres: the database does not answer (" in text
        assert PASSWORD not in text
        assert "Traceback" not in text
        with pytest.raises(RunError, match="the database does not answer"):
            join(str(tmp_path / "studies" / "gone"), server.url)
    finally:
        server.start()
    process = start(path, folder=tmp_path)
    text = finished(process)


def test_a_wrong_password(server, tmp_path) -> None:
    process = start(search_file(tmp_path), "--storage", server.url.replace(PASSWORD, "wr0ng"), folder=tmp_path)
    text = finished(process, 1)
    assert 'password authentication failed for user "me"' in text
    assert "wr0ng" not in text
