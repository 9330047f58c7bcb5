"""The local part of a search: worker processes of a study until its trials are done, and the final runs after it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from metaflowkit.config.yaml import write_atomic
from metaflowkit.distributed.launch import cores
from metaflowkit.errors import Interrupted, RunError
from metaflowkit.search import STORAGE_VARIABLE
from metaflowkit.search.final import BASELINE, final_runs, final_sources, final_table
from metaflowkit.search.report import conclude
from metaflowkit.search.results import BEST, line_about
from metaflowkit.search.specification import Search
from metaflowkit.search.storage import reachable
from metaflowkit.search.study import RUNNING, Study, enter
from metaflowkit.search.trial_queue import REQUEUED
from metaflowkit.training.final_scores import is_finished
from metaflowkit.training.signals import on_stop

POLL = 0.5


def run_search(search: Search, folder: Path, location: str | None, tell: Callable[[str], None] = print) -> None:
    """Search to the end: all trials, then the results, then the final runs.

    Args:
        search: what is searched.
        folder: of the study.
        location: a database's URL, or None for a journal file in the folder.
        tell: gets the lines for the user.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or the time limit; every running trial is saved.
        RunError: the folder or the storage cannot be used, or a worker met an error that would stop every trial.
    """
    with exclusive(folder):
        study = enter(search, folder, location)
        workers = Workers(study, tell)
        tell(f"study directory {folder}: {search.trials} trials, {search.settings.workers} worker{'s' * (search.settings.workers > 1)}")
        workers.search()
        tell("\n".join(["", *conclude(study, final=False)]))
        table = workers.finish()
        if table:
            conclude(study)  # its report with the test accuracies
        tell("\n".join(["", *table, f"next: mfk run {folder / BEST}"]))


@dataclass
class Workers:
    """Processes of this machine.

    Args:
        study: what they work on.
        tell: gets the lines for the user.
    """

    study: Study
    tell: Callable[[str], None]
    stopping: str | None = None
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def search(self) -> None:
        """Start the workers and tell of every trial until all are done; see :func:`run_search`."""
        settings, queue = self.study.search.settings, self.study.queue
        reported = {t.number for t in queue.trials() if t.state.is_finished()}
        deadline = time.monotonic() + settings.time_limit if settings.time_limit is not None else None
        restarts_left = settings.retries * (settings.workers + 1)
        with reachable(self.study.location), self._watched():
            for i in range(min(settings.workers, len(self._open()))):
                self._worker(f"worker-{i}")
            while self.running:
                time.sleep(POLL)
                queue.collect()
                self._tell_new(reported)
                if deadline is not None and time.monotonic() > deadline:
                    self._stop(f"the time limit of {settings.time_limit:g} seconds")
                for name in self._ended():  # by a signal: its trial is re-queued, and the worker restarted
                    if self.stopping is None and self._open():
                        restarts_left -= 1
                        self._worker(name) if restarts_left >= 0 else self._stop("workers that are killed again and again")
            queue.collect()
            self._tell_new(reported)
        if self.stopping is not None:
            remaining = f"{len(self._open())} of {self.study.search.trials} trials are left and nothing is lost"
            raise Interrupted(f"{self.study.folder}: stopped by {self.stopping}, {remaining}; go on with the same command", self.stopping)

    def finish(self) -> list[str]:
        """Train the best pipeline with each of the final seeds and evaluate it on test classes; with ``final.baseline`` the pipeline itself too.

        Returns:
            Lines about the accuracies.
        """
        folder, sources, runs = self.study.folder, final_sources(self.study), final_runs(self.study)
        if BASELINE in sources.values():
            write_atomic(folder / BASELINE, self.study.search.pipeline.to_yaml().encode())
        waiting = [(sources[name], seed, run) for name, by_seed in runs.items() for seed, run in by_seed.items() if not is_finished(run)]
        if waiting:
            seeds = ", ".join(map(str, self.study.search.settings.final.seeds))
            self.tell(f"training {' and '.join(sources)} with seeds {seeds}, and evaluating on test classes")
        with self._watched():
            while (waiting and self.stopping is None) or self.running:
                while waiting and len(self.running) < self.study.search.settings.workers and self.stopping is None:
                    self._final(*waiting.pop(0))
                time.sleep(POLL)
                for name in self._ended():
                    self._stop(f"the end of {name}")
        if self.stopping is not None:
            raise Interrupted(f"{folder}: stopped by {self.stopping}, all is saved; go on with the same command", self.stopping)
        lines = final_table(runs, self.study.search.pipeline.metric)
        if lines:
            write_atomic(folder / "test.md", "\n".join(lines).encode())
        return lines

    def _final(self, source: str, seed: int, run: Path) -> None:
        changes = [f"{path}={json.dumps(value)}" for path, value in {**self.study.search.settings.final.set, "seed": seed}.items()]  # JSON is YAML
        resume = ["--resume"] if (run / "pipeline.yaml").is_file() else []
        sets = [part for change in changes for part in ("--set", change)]
        self._start(run.name, ["run", str(self.study.folder / source), *sets, "--run-dir", str(run), *resume])

    def _worker(self, name: str) -> None:
        self._start(name, ["search", "--worker", str(self.study.folder), "--index", name.removeprefix("worker-")])

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        path = self._log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, cores() // self.study.search.settings.workers)
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        if self.study.location is not None:
            environment[STORAGE_VARIABLE] = self.study.location
        with open(path, "ab") as handle:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "metaflowkit", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops them
            )

    def _ended(self) -> Iterator[str]:
        """The processes that ended without finishing.

        Raises:
            RunError: one of them by an error of its own.
        """
        for name, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[name]
            if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
                self._stop(f"a signal to {name}")
            elif code > 0 and self.stopping is None:
                lines = self._log(name).read_text(errors="replace").strip().splitlines() or ["ended"]
                raise RunError(f"{name}: {lines[-1].removeprefix('mfk: ')}; all it printed is in {self._log(name)}")
            elif code < 0:
                yield name

    def _log(self, name: str) -> Path:
        return self.study.folder / "logs" / f"{name}.log"

    def _open(self) -> list[FrozenTrial]:
        return self.study.queue.trials(TrialState.WAITING, TrialState.RUNNING)

    def _tell_new(self, reported: set[int]) -> None:
        trials = self.study.queue.trials()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in reported:
                reported.add(trial.number)
                done = sum(t.state.is_finished() and REQUEUED not in t.user_attrs for t in trials)
                self.tell(line_about(self.study, trial, done))

    def _stop(self, reason: str) -> None:
        """Ask all processes to save and stop; the first reason counts."""
        if self.stopping is None:
            self.stopping = reason
            for process in self.running.values():
                process.terminate()

    def _on_signal(self, name: str) -> None:
        """The first Ctrl-C or SIGTERM asks the processes to save and stop, the second ends them."""
        if self.stopping is None:
            self.tell("stopping: running trials are being saved; once more ends them at once")
            self._stop(name)
        else:
            for process in self.running.values():
                process.kill()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """All processes end with this context, and signals are passed on to all."""
        with on_stop(self._on_signal):
            try:
                yield
            finally:
                for process in self.running.values():
                    process.terminate()
                for process in self.running.values():
                    process.wait()
                self.running.clear()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Within this context no other ``mfk search`` runs on this folder.

    Raises:
        RunError: another one does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUNNING).touch()
    except OSError as error:
        raise RunError(f"{folder}: cannot hold a study ({error.strerror}); choose another --study-dir") from None
    with open(folder / RUNNING) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another mfk search is at work here; join it with mfk search --worker {folder}") from None
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [RUNNING]:  # the search wrote nothing
                (folder / RUNNING).unlink()
                folder.rmdir()
