"""The storage of a study: a journal file in its folder, or a database for many machines."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
import sqlalchemy.pool
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.engine import make_url

from metaflowkit.errors import ConfigError, RunError

JOURNAL = "journal.log"

optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextmanager
def experimental() -> Iterator[None]:
    """Within this context Optuna does not warn of experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class WholeLines(JournalFileBackend):
    """A journal file without incomplete lines, even after a full disk or a crash during a write.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.mutex = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self.mutex)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines after the last whole one, or none.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            self.mutex.acquire()
            try:
                with open(self.path, "rb+", buffering=0) as handle:
                    _append(handle, text)
            finally:
                self.mutex.release()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); free space, then go on with the same command") from None


def _append(handle: BinaryIO, text: bytes) -> None:
    line_end = _last_line_end(handle)
    handle.truncate(line_end)
    handle.seek(line_end)
    try:
        rest = memoryview(text)
        while rest:
            rest = rest[handle.write(rest) :]
        os.fsync(handle.fileno())
    except OSError:
        handle.truncate(line_end)
        raise


def _last_line_end(handle: BinaryIO) -> int:
    end = handle.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        handle.seek(start)
        newline = handle.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def open_storage(location: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """The storage of a study.

    Args:
        location: a database's URL, such as ``postgresql://user@host/base`` or ``sqlite:///study.db``; None for a journal file.
        folder: of the study, where the journal file lies.

    Raises:
        ConfigError: the URL is invalid, or its driver is missing.
        RunError: the database cannot be reached, or the folder cannot be written.
    """
    if location is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return optuna.storages.JournalStorage(WholeLines(folder / JOURNAL))
        except OSError as error:
            raise RunError(f"{folder}: cannot hold a study ({error.strerror}); choose another --study-dir") from None
    try:
        is_sqlite = make_url(location).get_backend_name() == "sqlite"
    except sqlalchemy.exc.ArgumentError:
        raise ConfigError("storage: is no URL of a database; write such as postgresql://user@host/base or sqlite:///study.db") from None
    with reachable(location):
        try:
            # no connection is held while a trial trains
            options: dict[str, Any] = {"poolclass": sqlalchemy.pool.NullPool} | ({"connect_args": {"timeout": 60}} if is_sqlite else {})
            storage = optuna.storages.RDBStorage(location, engine_kwargs=options)
            if is_sqlite:
                _one_after_the_other(storage.engine)
            return optuna.storages.get_storage(storage)  # with the cache that studies share
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            driver = str(error).splitlines()[0] if isinstance(error, sqlalchemy.exc.NoSuchModuleError) else "its driver is not installed"
            raise ConfigError(
                f"storage: {shown(location)} cannot be used ({driver}); install one, such as psycopg[binary] for PostgreSQL or PyMySQL for MySQL, then mysql+pymysql://..."
            ) from None


def _one_after_the_other(engine: sqlalchemy.engine.Engine) -> None:
    """SQLite cannot lock a row: without a lock on the whole file from a transaction's begin, two workers could take one trial.

    See https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, "Serializable isolation / Savepoints / Transactional DDL".
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def shown(location: str) -> str:
    """A database's URL without its password."""
    return make_url(location).render_as_string(hide_password=True)


@contextmanager
def reachable(location: str | None) -> Iterator[None]:
    """Turns the exceptions of a database that does not answer into one clear error.

    Raises:
        RunError: it does not answer; the password is not shown.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        if location is None or isinstance(error, sqlalchemy.exc.NoSuchModuleError):
            raise
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        password = make_url(location).password
        reason = reason.replace(str(password), "***") if password else reason
        raise RunError(
            f"{shown(location)}: the database does not answer ({reason}); see that it runs and that the URL is right, then repeat the command"
        ) from None
