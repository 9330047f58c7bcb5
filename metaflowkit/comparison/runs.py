"""The runs of a comparison: each pipeline with each seed, trained, continued or reused."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaflowkit.composition.device import wait_for
from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import TASKS
from metaflowkit.config.types import Pipeline
from metaflowkit.config.yaml import differences, read_yaml, write_atomic
from metaflowkit.errors import ConfigError, RunError
from metaflowkit.evaluation.scores import Score
from metaflowkit.reporting.terminal import Silent
from metaflowkit.reporting.train import train
from metaflowkit.training.events import Event, Finished
from metaflowkit.training.final_scores import is_finished

PACE = "pace.json"
MEASURED_STEPS = 5
SIZES = ("way", "shot", "query", "steps", "episodes", "seed")


@dataclass(frozen=True)
class Contender:
    """A pipeline of a comparison.

    Attributes:
        name: of its file; numbered where another file has the same name.
        pipeline: with every default, and the seed 0.
    """

    name: str
    pipeline: Pipeline

    def at(self, seed: int) -> Pipeline:
        """The pipeline with another seed."""
        return replace(self.pipeline, seed=seed)


def contenders(paths: Sequence[Path], overrides: Sequence[str] = (), variations: Sequence[str] = ()) -> list[Contender]:
    """The pipelines of these files, once they are known to be measured on the same test episodes.

    Args:
        paths: pipeline files; one may be named twice.
        overrides: changes to all of them.
        variations: changes of which each makes a pipeline of its own out of the only file.

    Raises:
        ConfigError: there are fewer than two, one is no pipeline, several files are to be varied, or test episodes differ.
    """
    if variations and len(paths) != 1:
        raise ConfigError(f"--vary: makes several pipelines out of one file, got {len(paths)} files; name one")
    made = [(paths[0], variation) for variation in variations] or [(path, "") for path in paths]
    if len(made) < 2:
        raise ConfigError(f"mfk compare: needs two pipelines at least, got {len(made)}; name them, the baseline first, or vary one with --vary")
    named: list[Contender] = []
    for path, variation in made:
        pipeline, taken = read(path, [*overrides, *([variation] if variation else []), "seed=0"]), [each.name for each in named]
        name = _name(variation) if variation else path.stem
        count = 1 + sum(other == name or other.startswith(f"{name}-") for other in taken)
        named.append(Contender(name if name not in taken else f"{name}-{count}", pipeline))
    first, source = named[0], _episode_source(named[0].pipeline)
    for (path, _), each in zip(made[1:], named[1:]):
        if differing := differences(source, _episode_source(each.pipeline)):
            raise ConfigError(
                f"{path}: is measured on other test episodes than {first.name}; {'; '.join(differing[:5])}; make them equal, such as with --set evaluate.seed=0"
            )
        if not {str(choice) for choice in each.pipeline.evaluate.readouts} & {str(choice) for choice in first.pipeline.evaluate.readouts}:
            raise ConfigError(f"{path}: has no evaluate.readouts in common with {first.name}; name one in both")
    return named


def _name(variation: str) -> str:
    """A change as the name of a folder: its last key and the value, such as ``delta=5`` or ``objective=bootstrapped_kl-delta=2``."""
    path, _, value = variation.partition("=")
    value = re.sub(r"(\w)\s*:\s+", r"\1=", re.sub(r"^\{\s*name\s*:\s+", "", value))
    return re.sub(r"[^\w.=+-]+", "-", f"{path.rpartition('.')[2]}={value}").strip("-.")


def _episode_source(pipeline: Pipeline) -> dict[str, Any]:
    """What the test episodes of a pipeline depend on."""
    plain = pipeline.plain()
    source = {"dataset": plain["dataset"], "metric": list(pipeline.metric), "evaluate": {key: plain["evaluate"][key] for key in SIZES}}
    if TASKS.entries(pipeline.plugins)[pipeline.tasks.name].tags["measured"]:  # held-out tasks are of their own family
        source["tasks"] = {key: value for key, value in plain["tasks"].items() if key != "meta_batch"}
    return source


def with_steps(contender: Contender, steps: int, budget: str) -> Contender:
    """The pipeline with so many outer steps.

    Raises:
        ConfigError: they end before the first validation.
    """
    every = contender.pipeline.evaluate.every
    if steps < every:
        raise ConfigError(
            f"--budget {budget}: is {steps} outer steps of {contender.name}, which validates every {every}; give more, or lower it with --set evaluate.every={max(1, steps)}"
        )
    return replace(contender, pipeline=replace(contender.pipeline, outer=replace(contender.pipeline.outer, steps=steps)))


def seconds_per_step(pipeline: Pipeline) -> float:
    """The time of an outer step on this machine, the median of a few, without validations."""
    flow, durations = build(pipeline), []
    for step in range(1, MEASURED_STEPS + 2):
        start = time.perf_counter()
        flow.learner.outcome(flow.episode(step))
        wait_for(flow.device)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def train_or_reuse(contender: Contender, seed: int, folder: Path, tell: Callable[[str], None]) -> None:
    """Bring a run to its end: nothing is done where it has come to it, and what was interrupted goes on.

    Args:
        contender: the pipeline.
        seed: of the run.
        folder: its run directory.
        tell: gets a line for every validation.

    Raises:
        RunError: the folder holds a run of another pipeline.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    pipeline = contender.at(seed)
    started = (folder / "pipeline.yaml").is_file()
    if started and (differing := differences(read_yaml(folder / "pipeline.yaml").plain(), pipeline.plain())):
        raise RunError(f"{folder}: holds a run of another pipeline; {'; '.join(differing[:5])}; choose another -o, or remove it")
    if is_finished(folder):
        tell(f"{contender.name}, seed {seed}: reused")
        return
    train(pipeline, folder, resume=started, progress=_Paced(folder, f"{contender.name}, seed {seed}", tell))


def pace_of(folder: Path) -> float | None:
    """Seconds of an outer step of a finished run, the median; None where no step was timed."""
    path = folder / PACE
    return float(json.loads(path.read_text())["seconds_per_step"]) if path.is_file() else None


class _Paced(Silent):
    """Tells of validations, and measures the time between outer steps; steps that end with a validation are left out."""

    def __init__(self, folder: Path, title: str, tell: Callable[[str], None]) -> None:
        self.folder, self.title, self.tell = folder, title, tell
        self.durations: list[float] = []
        self.last, self.steps = 0.0, 0

    def show(self, event: Event) -> None:
        """Show an event of training; the last one writes the pace to the run directory."""
        super().show(event)
        if isinstance(event, Finished) and self.durations:
            write_atomic(self.folder / PACE, json.dumps({"seconds_per_step": statistics.median(self.durations)}).encode())

    def start(self, folder: Path, flow: Flow, steps: int) -> None:
        self.steps = steps

    def step(self, step: int, objective: float, examples: int) -> None:
        now = time.perf_counter()
        if self.last:
            self.durations.append(now - self.last)
        self.last = now

    def validated(self, step: int, score: Score) -> None:
        self.tell(f"{self.title}: step {step}/{self.steps} val {score}")
        del self.durations[-1:]
        self.last = time.perf_counter()
