"""The storages keep whole lines, and say plainly when they cannot."""

from __future__ import annotations

import errno
import json
import os

import optuna
import pytest

from metaflowkit.errors import ConfigError, RunError
from metaflowkit.search.storage import JOURNAL, open_storage, reachable, shown


def _numbers(folder):
    storage = open_storage(None, folder)
    return [t.number for t in optuna.load_study(study_name="s", storage=storage).trials]


@pytest.fixture
def study(tmp_path):
    study = optuna.create_study(study_name="s", storage=open_storage(None, tmp_path))
    for _ in range(3):
        study.enqueue_trial({})
    return study


@pytest.mark.parametrize("lost", [1, 20])
def test_a_torn_last_line_is_cut_and_the_study_goes_on(tmp_path, study, lost) -> None:
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-lost])
    assert _numbers(tmp_path) == [0, 1, 2]
    optuna.load_study(study_name="s", storage=open_storage(None, tmp_path)).enqueue_trial({})
    assert _numbers(tmp_path) == [0, 1, 2, 3]
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_full_disk_leaves_whole_lines_and_one_clear_error(tmp_path, study, monkeypatch) -> None:
    path = tmp_path / JOURNAL
    whole = path.read_bytes()

    def full(handle) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"journal.log: cannot be written \(No space left on device\); free space, then go on with the same command"):
        study.enqueue_trial({})
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert not (tmp_path / f"{JOURNAL}.lock").exists()
    assert _numbers(tmp_path) == [0, 1, 2]


def test_a_folder_that_cannot_be(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: cannot hold a study \(.*\); choose another --study-dir"):
        open_storage(None, tmp_path / "file")


def test_an_unreachable_database_is_one_line_without_password(tmp_path) -> None:
    with pytest.raises(RunError, match=r"sqlite:////nowhere/at/all.db: the database does not answer \(unable to open database file\); see that it runs"):
        open_storage("sqlite:////nowhere/at/all.db", tmp_path)
    with pytest.raises((RunError, ConfigError)) as caught:
        open_storage("postgresql://me:s3cret@127.0.0.1:1/base", tmp_path)
    assert "s3cret" not in str(caught.value)
    assert "postgresql://me:***@127.0.0.1:1/base" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shown("mysql://me:s3cret@host/base") == "mysql://me:***@host/base"


def test_what_is_no_url(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"storage: is no URL of a database; write such as"):
        open_storage("here and there", tmp_path)
    with pytest.raises(ConfigError, match=r"storage: nosuch://host/base cannot be used"):
        open_storage("nosuch://host/base", tmp_path)


def test_a_password_in_the_databases_own_words_is_hidden() -> None:
    import sqlalchemy.exc

    with pytest.raises(RunError) as caught, reachable("postgresql://me:s3cret@h/b"):
        raise sqlalchemy.exc.OperationalError("select", {}, Exception("no entry for me with s3cret"))
    assert str(caught.value).startswith("postgresql://me:***@h/b: the database does not answer (no entry for me with ***)")
