"""The run directory: its files, and the lock that keeps other processes out."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from metaflowkit import __version__
from metaflowkit.config.files import PARTIAL, locked, reason, remedy, remove_partials
from metaflowkit.config.pipeline import read
from metaflowkit.config.types import Pipeline
from metaflowkit.config.yaml import differences, parse_yaml, read_yaml, write_atomic
from metaflowkit.distributed.processes import launch_id
from metaflowkit.errors import CheckpointError, ConfigError, RunError
from metaflowkit.training import checkpoint
from metaflowkit.training.metric_log import MetricLog
from metaflowkit.training.versions import versions

LOCK = "run.lock"
RESTORE_FILE = "put the file of this run back, or start it again with --overwrite"


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        folder: the directory. It holds ``pipeline.yaml`` (resolved), ``run.json`` (versions, seed, commit, command),
            ``metrics.jsonl``, ``checkpoints/``, ``evaluations.jsonl`` and ``report.md``.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.folder / "checkpoints"

    @property
    def metric_log(self) -> MetricLog:
        """Metrics by step."""
        return MetricLog(self.folder / "metrics.jsonl")

    def latest(self) -> checkpoint.Snapshot:
        """The newest checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        return checkpoint.load(self.latest_path())

    def load_checkpoint(self, path: Path) -> checkpoint.Snapshot:
        """A checkpoint, once it is known to be of this run.

        Raises:
            CheckpointError: it cannot be read, or another pipeline wrote it; with the settings that differ.
        """
        snapshot = checkpoint.load(path)
        differing = differences(parse_yaml(snapshot.pipeline, str(path)).plain(), read_yaml(self.folder / "pipeline.yaml").plain())
        if differing:
            raise CheckpointError(f"{path}: belongs to another pipeline; {'; '.join(differing[:5])}; {RESTORE_FILE}")
        return snapshot

    def latest_path(self) -> Path:
        """Where the newest checkpoint lies.

        Raises:
            CheckpointError: there is none.
        """
        paths = checkpoint.saved(self.checkpoints)
        if not paths:
            raise CheckpointError(f"{self.checkpoints}: holds no checkpoint; start the run again with --overwrite")
        return paths[-1]

    def pipeline(self) -> Pipeline:
        """The resolved pipeline of the run.

        Raises:
            RunError: the folder is no run directory.
        """
        path = self.folder / "pipeline.yaml"
        if not path.is_file():
            raise RunError(f"{self.folder}: is no run directory (it has no pipeline.yaml); give the folder that mfk run named")
        return read(path)

    def append(self, results: Sequence[dict[str, Any]], once: bool = False) -> None:
        """Add a line each to ``evaluations.jsonl``; earlier lines stay even where this fails.

        Args:
            results: of measurements.
            once: leave out what an earlier line says already, as when a run was killed between this and its report, and then resumed.
        """
        path = self.folder / "evaluations.jsonl"
        before = path.read_bytes() if path.exists() else b""
        lines = [json.dumps(result).encode() + b"\n" for result in results]
        present = set(before.splitlines(keepends=True)) if once else set()
        write_atomic(path, before + b"".join(line for line in lines if line not in present))


def default_folder(pipeline: Pipeline) -> Path:
    """``runs/<pipeline>-<time>``."""
    return Path("runs") / f"{pipeline.name}-{datetime.now():%Y%m%d-%H%M%S}"


def open_run(folder: Path, pipeline: Pipeline, resume: bool = False, overwrite: bool = False) -> Run:
    """Create a run directory, or open an existing one.

    Args:
        folder: the directory.
        pipeline: what will run in it; on resuming it must be what ran in it.
        resume: go on with the run in the directory.
        overwrite: remove the run in the directory.

    Raises:
        RunError: the folder is in use, holds no run to resume, or cannot be written.
        CheckpointError: its run is one of another pipeline.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; keep one")
    run = Run(folder)
    if resume:
        if not (folder / "pipeline.yaml").is_file():
            raise RunError(f"{folder}: holds no run to resume; leave --resume out, or name its directory with --run-dir")
        stored = run.pipeline().plain()
        differing = differences(stored, pipeline.plain())
        if differing:
            raise CheckpointError(
                f"{folder}: holds a run of another pipeline; {'; '.join(differing[:5])}; resume with the same settings, or choose another --run-dir"
            )
        if not (folder / "run.json").is_file():  # the process was killed before it was written
            write_atomic(folder / "run.json", json.dumps(_facts(pipeline), indent=2).encode())
        return run
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file, not a directory; choose another --run-dir")
    if _occupied(folder):
        if not overwrite:
            raise RunError(f"{folder}: is not empty; go on with --resume, replace it with --overwrite, or choose another --run-dir")
        if not (folder / "pipeline.yaml").is_file():
            raise RunError(f"{folder}: is not empty and no run directory, so --overwrite leaves it alone; choose another --run-dir")
        directory = folder.resolve()
        if directory in (Path.cwd(), *Path.cwd().parents):
            raise RunError(f"{folder}: is the current directory, so --overwrite leaves it alone; go one up, or choose another --run-dir")
        trash = directory.with_name(f".{directory.name}.removed")
        try:
            if trash.exists():  # an earlier replacement was interrupted
                shutil.rmtree(trash)
            directory.rename(trash)  # at once, so that an interruption leaves no half of the old run behind
            shutil.rmtree(trash)
            directory.mkdir()
        except OSError as error:
            raise RunError(f"{folder}: cannot be replaced ({reason(error)}); remove it yourself or choose another --run-dir") from None
    write_atomic(folder / "pipeline.yaml", pipeline.to_yaml().encode())
    write_atomic(folder / "run.json", json.dumps(_facts(pipeline), indent=2).encode())
    return run


def was_restarted(folder: Path) -> bool:
    """Whether the launcher has restarted this process, which had begun or resumed the run in the folder."""
    try:
        facts = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return False
    return launch_id() is not None and facts.get("launch") == launch_id()


@contextmanager
def hold_run(folder: Path, pipeline: Pipeline, resume: bool = False, overwrite: bool = False) -> Iterator[Run]:
    """:func:`open_run`, with the directory locked while the context is open.

    Raises:
        RunError: another process is at work in the folder; and see :func:`open_run`.
    """

    def lock() -> AbstractContextManager[None]:
        return locked(folder / LOCK, f"{folder}: another process is at work in this run directory; wait for it, stop it, or choose another --run-dir")

    with ExitStack() as stack:
        if (folder / "pipeline.yaml").is_file() or (not resume and not folder.is_file() and not _occupied(folder)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{folder}: cannot be written ({reason(error)}); {remedy(error)}") from None
            stack.enter_context(lock())
            for path in (folder, folder / "checkpoints"):
                remove_partials(path)
        run = open_run(folder, pipeline, resume, overwrite)
        if not (folder / LOCK).exists():  # it was removed with the replaced run
            stack.enter_context(lock())
        yield run


def _occupied(folder: Path) -> bool:
    """Whether a folder holds more than a lock and partial files."""
    return folder.is_dir() and any(path.name != LOCK and not path.name.endswith(PARTIAL) for path in folder.iterdir())


def _facts(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "seed": pipeline.seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "launch": launch_id(),
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "git_commit": _commit(),
        **({} if pipeline.model.weights is None else {"weights_sha256": _sha256(Path(pipeline.model.weights))}),
        "python": platform.python_version(),
        "versions": {"metaflowkit": __version__, **versions()},
    }


def _sha256(path: Path) -> str:
    """Which file of weights it was, since a path may name another one later."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
