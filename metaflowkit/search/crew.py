"""The local part of a search: processes that work on a study, watched until its trials are done, and the last runs after it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from optuna.trial import FrozenTrial, TrialState

from metaflowkit.errors import Interrupted, RunError
from metaflowkit.files import to_yaml, write_atomic
from metaflowkit.search.results import best_trials, line_about, test_table
from metaflowkit.search.slots import AGAIN
from metaflowkit.search.storage import reachable
from metaflowkit.search.study import ENVIRONMENT, Study

POLL = 0.5


@dataclass
class Crew:
    """Processes of this machine.

    Args:
        study: what they work on.
        tell: gets the lines for the user.
    """

    study: Study
    tell: Callable[[str], None] = print
    stopping: str | None = None
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def search(self) -> None:
        """Start the workers and tell of every trial until all are done.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or the time limit; every trial at hand is saved.
            RunError: a worker met something that would stop every trial.
        """
        settings, slots = self.study.search.settings, self.study.slots
        told = {t.number for t in slots.trials() if t.state.is_finished()}
        until = time.monotonic() + settings.time_limit if settings.time_limit is not None else None
        losses = 0
        with reachable(self.study.location), self._signals():
            for i in range(min(settings.workers, len(self._open()))):
                self._start(f"worker {i}", ["search", "--worker", str(self.study.folder), "--index", str(i)], f"workers/{i}.log")
            while self.running:
                time.sleep(POLL)
                for line in slots.collect():
                    self.tell(line)
                self._tell_new(told)
                if until is not None and time.monotonic() > until and self.stopping is None:
                    self._stop(f"the time limit of {settings.time_limit:g} seconds")
                for name, code in self._ended():
                    if code < 0 and self.stopping is None and self._open():  # killed: its trial is put again, and so is the worker
                        losses += 1
                        if losses > settings.retries * settings.workers + settings.retries:
                            self._stop("workers that are killed again and again")
                        index = name.split()[-1]
                        self._start(name, ["search", "--worker", str(self.study.folder), "--index", index], f"workers/{index}.log")
                    elif code > 0 and self.stopping is None:
                        self._stop(name)
                        raise RunError(f"{name}: {self._last_line(f'workers/{name.split()[-1]}.log')}")
            slots.collect()
            self._tell_new(told)
        if self.stopping is not None:
            raise Interrupted(
                f"{self.study.folder}: stopped by {self.stopping}, {len(self._open())} of {self.study.search.trials} trials are left and nothing is lost; go on with the same command"
            )

    def finish(self) -> list[str]:
        """Train the best pipeline with each of the last seeds and evaluate it on test classes.

        Returns:
            Lines about the accuracies.
        """
        search, folder = self.study.search, self.study.folder
        best = best_trials(self.study)
        if not best or not search.settings.final.seeds:
            return []
        prefix = folder / "final"
        changes = [f"{path}={to_yaml(value, width=10_000).removesuffix('...' + chr(10)).strip()}" for path, value in search.settings.final.set.items()]
        runs = {seed: prefix / f"trial-{best[0].number:04d}-seed-{seed}" for seed in search.settings.final.seeds}
        waiting = [seed for seed, run in runs.items() if not (run / "report.md").is_file()]
        if waiting:
            self.tell(f"trial {best[0].number} is the best; training it with {len(runs)} seeds, and evaluating on test classes")
        with self._signals():
            while waiting or self.running:
                while waiting and len(self.running) < search.settings.workers and self.stopping is None:
                    seed = waiting.pop(0)
                    resume = ["--resume"] if (runs[seed] / "pipeline.yaml").is_file() else []
                    sets = [part for change in [*changes, f"seed={seed}"] for part in ("--set", change)]
                    command = ["run", str(folder / "best.yaml"), *sets, "--run-dir", str(runs[seed]), *resume]
                    self._start(f"seed {seed}", command, f"workers/seed-{seed}.log")
                time.sleep(POLL)
                for name, code in self._ended():
                    if code != 0 and self.stopping is None:
                        self._stop(name)
                        raise RunError(f"{name}: {self._last_line(f'workers/seed-{name.split()[-1]}.log')}")
                    self.tell(f"{name}: {'done' if code == 0 else 'saved'}")
                if self.stopping is not None and not self.running:
                    raise Interrupted(f"{folder}: stopped by {self.stopping}, all is saved; go on with the same command")
        lines = test_table([run for run in runs.values()])
        write_atomic(folder / "test.md", "\n".join(lines).encode())
        return lines

    def _start(self, name: str, arguments: Sequence[str], log: str) -> None:
        path = self.study.folder / log
        path.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, _cores() // self.study.search.settings.workers)
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        if self.study.location is not None:
            environment[ENVIRONMENT] = self.study.location
        with open(path, "ab") as handle:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "metaflowkit", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then asks them to stop
            )

    def _ended(self) -> Iterator[tuple[str, int]]:
        for name, process in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[name]
                yield name, code

    def _open(self) -> list[FrozenTrial]:
        return self.study.slots.trials(TrialState.WAITING, TrialState.RUNNING)

    def _tell_new(self, told: set[int]) -> None:
        trials = self.study.slots.trials()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in told:
                told.add(trial.number)
                done = sum(t.state.is_finished() and AGAIN not in t.user_attrs for t in trials)
                self.tell(line_about(self.study, trial, done))

    def _last_line(self, log: str) -> str:
        lines = (self.study.folder / log).read_text(errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("mfk: ") if lines else "ended"
        return f"{last}; all it printed is in {self.study.folder / log}"

    def _stop(self, reason: str) -> None:
        self.stopping = reason
        for process in self.running.values():
            process.terminate()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks the processes to save and stop, the second ends them."""

        def request(number: int, frame: FrameType | None) -> None:
            if self.stopping is None:
                self.tell("stopping: trials at hand are being saved; once more ends them at once")
                self._stop(signal.Signals(number).name)
            else:
                for process in self.running.values():
                    process.kill()

        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.wait()
            self.running.clear()
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else runs ``mfk search`` on this folder meanwhile.

    Raises:
        RunError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".running", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another mfk search is at work here; join it with mfk search --worker {folder}") from None
        yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
