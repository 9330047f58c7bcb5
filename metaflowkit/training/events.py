"""The events of training, for displays, metric loggers and pruning; a reader that leaves the loop ends the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from metaflowkit.composition.flow import Flow
    from metaflowkit.evaluation.scores import Difference, Score
    from metaflowkit.training.run_directory import Run


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        folder: the run directory; its metrics of earlier steps are there.
        flow: the built pipeline.
        steps: outer steps in all.
    """

    folder: Path
    flow: Flow
    steps: int


@dataclass(frozen=True)
class Stepped:
    """An outer step is done.

    Attributes:
        step: from 1.
        objective: mean over its tasks, before the step.
        metrics: what was written to the metric log, by name.
        examples: support and query examples together; tasks, where examples are drawn with the current parameters.
    """

    step: int
    objective: float
    metrics: dict[str, float]
    examples: int


@dataclass(frozen=True)
class Validated:
    """Validation after a step (0: before the first); the weights are saved by now."""

    step: int
    score: Score


@dataclass(frozen=True)
class Warned:
    """A sign that the run fails, the first time that it shows; also in the metric log.

    Attributes:
        step: at which it showed.
        sign: its name.
        text: what was seen, the usual cause, and the key to change.
    """

    step: int
    sign: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written, from which ``--resume`` goes on."""

    step: int
    path: Path


@dataclass(frozen=True)
class Tested:
    """A test of the untrained network or of the best weights, at one way and shot: a score for each readout, or number of inner steps."""

    weights: Literal["untrained", "trained"]
    scores: Sequence[Score]


@dataclass(frozen=True)
class Finished:
    """All is done; the scores are in ``evaluations.jsonl``, and the flow has the best weights.

    Attributes:
        run: the run directory, still locked.
        flow: the built pipeline.
        before: test scores of the untrained network.
        after: test scores of the best weights, in the same order.
        best: ``step`` of the best weights, and ``value`` of their validation; of the last weights and NaN without validation.
        untrained: validation before training; None without.
        validation: of the best weights and the untrained network; None where it was not measured.
        seconds: since the call.
        protocol: how it was measured.
    """

    run: Run
    flow: Flow
    before: Sequence[Score]
    after: Sequence[Score]
    best: dict[str, float] | None
    untrained: float | None
    validation: Difference | None
    seconds: float
    protocol: str


Event = Started | Stepped | Warned | Validated | Saved | Tested | Finished
