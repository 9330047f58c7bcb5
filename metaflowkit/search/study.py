"""A study on disk or in a database: created, continued, joined."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from metaflowkit.config.yaml import Mark, as_node, differences, to_yaml, write_atomic
from metaflowkit.errors import ConfigError, RunError
from metaflowkit.search import STORAGE_VARIABLE
from metaflowkit.search.specification import Search, search_of
from metaflowkit.search.storage import JOURNAL, experimental, open_storage, reachable, shown
from metaflowkit.search.trial_queue import TrialQueue

SEARCH, RUNNING = "search", ".running"
SAME = ("pipeline", "space", "metrics")


@dataclass(frozen=True)
class Study:
    """An open study.

    Attributes:
        search: what is searched.
        folder: where run directories, logs and results lie.
        location: the database's URL; None for a journal file in the folder.
        queue: its trials.
    """

    search: Search
    folder: Path
    location: str | None
    queue: TrialQueue


def enter(search: Search, folder: Path, location: str | None) -> Study:
    """Create a study, or continue it, and queue its trials.

    Args:
        search: what is searched.
        folder: of the study.
        location: a database's URL, or None.

    Raises:
        ConfigError: there is a study of this name that searches something else.
        RunError: the storage cannot be reached, or the folder cannot be written.
    """
    name = search.settings.name
    content = search.written_out()
    study_files = {"study.json", JOURNAL, RUNNING}
    if folder.is_dir() and not study_files & {p.name for p in folder.iterdir()} and any(folder.iterdir()):
        raise RunError(f"{folder}: is not empty and no study; choose another --study-dir")
    with reachable(location):
        storage = open_storage(location, folder)
        directions = list(search.metrics.values())
        exists = name in optuna.study.get_all_study_names(storage)
        stored = optuna.load_study(study_name=name, storage=storage).user_attrs.get(SEARCH) if exists else None
        if stored is not None:
            differing = [line for key in SAME for line in differences(stored[key], content[key], key)]
            if differing:
                raise ConfigError(
                    f"{shown(location) if location else folder}: the study {name!r} there searches something else; {'; '.join(differing[:5])}; "
                    "put these back, or give the new one a name and --study-dir of its own"
                )
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        study.set_user_attr(SEARCH, content)
        with experimental():
            study.set_metric_names(list(search.metrics))
        queue = TrialQueue(name, storage, search.settings.lease, search.settings.retries)
        queue.fill(search.points, search.trials)
    record = {"name": name, "storage": shown(location) if location else None}
    write_atomic(folder / "study.json", json.dumps(record, indent=2).encode())
    write_atomic(folder / "search.yaml", to_yaml(content).encode())
    return Study(search, folder, location, queue)


def join(study: str, location: str | None = None, folder: Path | None = None) -> Study:
    """Open a study that another process started.

    Args:
        study: its folder, or its name in a database.
        location: the database's URL; None for that in the study's folder.
        folder: where this machine's run directories go; None for the study's folder, or ``studies/<name>``.

    Raises:
        ConfigError: there is no such study, or its database is not named.
        RunError: the database does not answer.
    """
    path = Path(study)
    name = study
    if (path / "study.json").is_file():
        record = json.loads((path / "study.json").read_text())
        name, folder = record["name"], folder or path
        if record["storage"] is None:
            location = None
        elif location is None:
            if "***" in record["storage"]:
                raise ConfigError(f"--storage: the study in {path} is kept in {record['storage']}; give its URL with the password, or set {STORAGE_VARIABLE}")
            location = record["storage"]
    elif location is None:
        raise ConfigError(f"{study}: is no folder of a study; give the --study-dir that mfk search named, or the study's name and --storage")
    folder = folder or Path("studies") / name
    with reachable(location):
        storage = open_storage(location, folder)
        names = optuna.study.get_all_study_names(storage)
        if name not in names:
            raise ConfigError(f"{name}: there is no such study in {shown(location) if location else folder}; it holds {', '.join(names) or 'none'}")
        stored: dict[str, Any] | None = optuna.load_study(study_name=name, storage=storage).user_attrs.get(SEARCH)
    if stored is None:
        raise ConfigError(f"{name}: is a study, but none of mfk search; give another")
    search = search_of(as_node(stored, Mark(f"study {name}")), name, Path())
    return Study(search, folder, location, TrialQueue(name, storage, search.settings.lease, search.settings.retries))
