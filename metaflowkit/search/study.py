"""A study on disk or in a database: made, entered again, joined."""

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
    """A study that was entered.

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
    """Make a study, or go on with it, and queue its trials.

    Args:
        search: what is searched.
        folder: of the study.
        location: a database's URL, or None.

    Raises:
        ConfigError: there is a study of this name that searches something else.
        RunError: the storage cannot be reached, or the folder cannot be written.
    """
    name = search.settings.name
    written = search.written_out()
    known_files = {"study.json", JOURNAL, RUNNING}
    if folder.is_dir() and not known_files & {p.name for p in folder.iterdir()} and any(folder.iterdir()):
        raise RunError(f"{folder}: is not empty and no study; choose another --study-dir")
    with reachable(location):
        storage = open_storage(location, folder)
        directions = list(search.metrics.values())
        exists = name in optuna.study.get_all_study_names(storage)
        stored = optuna.load_study(study_name=name, storage=storage).user_attrs.get(SEARCH) if exists else None
        if stored is not None:
            differing = [line for key in SAME for line in differences(stored[key], written[key], key)]
            if differing:
                raise ConfigError(
                    f"{shown(location) if location else folder}: the study {name!r} there searches something else; {'; '.join(differing[:5])}; "
                    "put these back, or give the new one a name and --study-dir of its own"
                )
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        study.set_user_attr(SEARCH, written)
        with experimental():
            study.set_metric_names(list(search.metrics))
        queue = TrialQueue(name, storage, search.settings.lease, search.settings.retries)
        queue.fill(search.points, search.trials)
    where = {"name": name, "storage": shown(location) if location else None}
    write_atomic(folder / "study.json", json.dumps(where, indent=2).encode())
    write_atomic(folder / "search.yaml", to_yaml(written).encode())
    return Study(search, folder, location, queue)


def join(study: str, location: str | None = None, folder: Path | None = None) -> Study:
    """Enter a study that runs, or ran, elsewhere.

    Args:
        study: its folder, or its name in a database.
        location: the database's URL; None for what the folder says.
        folder: where this machine's run directories go; None for the study's folder, or ``studies/<name>``.

    Raises:
        ConfigError: there is no such study, or its database is not named.
        RunError: the database does not answer.
    """
    path = Path(study)
    name = study
    if (path / "study.json").is_file():
        facts = json.loads((path / "study.json").read_text())
        name, folder = facts["name"], folder or path
        if facts["storage"] is None:
            location = None
        elif location is None:
            if "***" in facts["storage"]:
                raise ConfigError(f"--storage: the study in {path} is kept in {facts['storage']}; give its URL with the password, or set {STORAGE_VARIABLE}")
            location = facts["storage"]
    elif location is None:
        raise ConfigError(f"{study}: is no folder of a study; give the --study-dir that mfk search named, or the study's name and --storage")
    folder = folder or Path("studies") / name
    with reachable(location):
        storage = open_storage(location, folder)
        names = optuna.study.get_all_study_names(storage)
        if name not in names:
            raise ConfigError(f"{name}: there is no such study in {shown(location) if location else folder}; it holds {', '.join(names) or 'none'}")
        there: dict[str, Any] | None = optuna.load_study(study_name=name, storage=storage).user_attrs.get(SEARCH)
    if there is None:
        raise ConfigError(f"{name}: is a study, but none of mfk search; give another")
    search = search_of(as_node(there, Mark(f"study {name}")), name, Path())
    return Study(search, folder, location, TrialQueue(name, storage, search.settings.lease, search.settings.retries))
