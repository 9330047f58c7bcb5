"""The keys of a search file as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.schema import Natural, Positive, Range


@dataclass(frozen=True)
class Limits:
    """What a trial may take; one that takes more is infeasible.

    Attributes:
        seconds: of the whole trial.
        memory: MiB beyond those in use before its first step.
    """

    seconds: Positive | None = None
    memory: Positive | None = None

    def set(self) -> dict[str, float]:
        """Those that are set."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}


@dataclass(frozen=True)
class Final:
    """The final runs: the best pipeline is trained again, with several seeds, and only then evaluated on test classes.

    Attributes:
        seeds: one run each.
        set: changes to the best pipeline, by dotted paths.
        baseline: whether the pipeline that the search started from is trained and evaluated likewise.
    """

    seeds: list[Natural] = field(default_factory=lambda: [0, 1, 2])
    set: dict[str, Any] = field(default_factory=dict)
    baseline: bool = False


@dataclass(frozen=True)
class Settings:
    """A search over a space of pipelines.

    Attributes:
        name: of the study.
        pipeline: a file, from the search file's folder, or a whole pipeline written out.
        space: what varies, by dotted paths: a list of choices, or {low, high} with log and step.
        set: changes to the pipeline that every trial shares, by dotted paths.
        metrics: directions of val/accuracy, or the tasks' own metric (the best of a run), seconds or memory (MiB); several of
            them make a Pareto front; null for validation alone.
        sampler: how settings are suggested.
        pruner: which trials are ended early.
        trials: in all.
        time_limit: seconds for one call of mfk search.
        workers: processes on this machine.
        storage: URL of a database; null for a journal file in the study's folder.
        seed: of the sampler.
        lease: seconds after which a worker that has not answered has lost its trial.
        retries: how often such a trial is tried again.
        limits: what a trial may take.
        final: the runs after the search.
    """

    name: str = field(metadata={"default": "the name of the file"})
    pipeline: str | dict[str, Any]
    space: dict[str, Any]
    set: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Literal["maximize", "minimize"]] | None = None
    sampler: Annotated[Choice, r.SAMPLERS] = Choice("tpe")
    pruner: Annotated[Choice, r.PRUNERS] = Choice("median")
    trials: Annotated[int, Range(1, most=1_000_000)] = 20
    time_limit: Positive | None = None
    workers: Annotated[int, Range(1, most=1024)] = 1
    storage: str | None = None
    seed: Natural = 0
    lease: Positive = 60.0
    retries: Annotated[int, Range(0, most=1000)] = 2
    limits: Limits = Limits()
    final: Final = Final()
